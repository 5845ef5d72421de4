"""The ClientApp of Flower's simulation: takes a frame out of a message, has its node's site answer, sends that back.

As client/flower_app.py, but for where the site is: each virtual node has its own, and an actor of Ray's plays many.
"""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.records import from_record, to_record
from fedsite.simulations.flower.federation import place
from fedsite.simulations.flower.link import NUMBER, WHO
from fedsite.simulations.flower.site import VirtualSite
from fedsite.simulations.vectorised.job import Job

_WARM: Final = 64  # sites whose data an actor keeps at hand

_log = logging.getLogger(__name__)
_sites: OrderedDict[Path, VirtualSite] = OrderedDict()  # of an actor


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """What an actor needs to be any node."""

    folder: Path  # of the sites' directories
    data: tuple[Any, ...]  # of each site, in Ray's object store
    job: Job
    plan: RoundPlan

    def answer(self, message: Message, context: Context) -> Message:
        """The site's reply; to the question who it is, its number.

        Raises:
            RuntimeError: there is no reply, not even one that says no.
        """
        number = int(context.node_config["partition-id"])
        if WHO in message.content:
            return Message(RecordDict({WHO: ConfigRecord({NUMBER: number})}), reply_to=message)
        try:
            return Message(to_record(self._site(number).answer(from_record(message.content))), reply_to=message)
        except Exception as error:
            _log.exception("instruction not answered")
            raise RuntimeError(f"site {number} could not answer ({type(error).__name__}: {error})") from None

    def app(self) -> ClientApp:
        """Flower's."""
        found = ClientApp()
        found.query()(self.answer)
        return found

    def _site(self, number: int) -> VirtualSite:
        import ray
        import torch

        torch.set_num_threads(1)
        where = place(self.folder, number)
        if where.directory not in _sites:
            # A copy: what Ray hands over is read-only.
            data = copy.deepcopy(ray.get(self.data[number]))
            _sites[where.directory] = VirtualSite(where, data, self.job, self.plan)
        _sites.move_to_end(where.directory)
        if len(_sites) > _WARM:
            _sites.popitem(last=False)
        return _sites[where.directory]
