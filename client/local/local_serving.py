"""Starts the local API of an agent over its own site's files; an agent that cannot have one works without it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedsite.client.consent import history
from fedsite.client.device.score_link import ScoreLink
from fedsite.client.health import facts as health_facts
from fedsite.client.health import overview
from fedsite.client.identity import site
from fedsite.client.local import local_socket
from fedsite.client.local.activity import Activity, Board
from fedsite.client.local.local_api import LocalApi
from fedsite.client.local.local_calls import Calls
from fedsite.client.settings import Settings
from fedsite.client.work import memory
from fedsite.protocol import instants
from fedsite.protocol.errors import FedsiteError

_log = logging.getLogger(__name__)


@contextmanager
def serving(directory: Path, settings: Settings, board: Board) -> Iterator[Path | None]:
    """Listen on the site's socket, whose path it gives; None where there can be none, which is logged.

    Args:
        directory: the site's state directory; the caller holds its lock.
        settings: of the operator.
        board: what the agent's loop tells.
    """

    def status(_: Activity) -> Mapping[str, Any]:
        # Read anew each time: a renewed certificate or a changed site.yaml shows at once. No ε is worked out here,
        # because that takes torch.
        who = site.load(directory)
        facts = health_facts.read(who, instants.now(), counting=None)
        return overview.value(who, facts, overview.findings(facts))

    allowed = settings.agent.worker_memory
    api: LocalApi | None = None
    try:
        calls = Calls(
            directory=directory,
            board=board,
            status=status,
            rounds=lambda: history.value(directory),
            scoring=ScoreLink(directory, memory_bytes=memory.default() if allowed is None else allowed),
        )
        api = LocalApi(local_socket.prepare(directory), calls)
        api.start()
    except FedsiteError as error:
        api = None
        _log.warning("no local API: %s", error)
    try:
        yield None if api is None else api.path
    finally:
        if api is not None:
            api.close()
