"""A virtual site of Flower's simulation: the real handler on a state directory of its own, with the simulation's data.

It checks signatures, asks its rules, prices and reserves what a private run costs, trains, masks or seals, keeps and
signs, as an enrolled site does. Three things are a simulation's: the identity was made here instead of enrolled, the
data is handed over instead of read from files, and batches and the noise of DP-SGD follow the simulation's seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedsite.client.consent import policy
from fedsite.client.handler import Handler
from fedsite.client.identity import site as identity
from fedsite.client.ledger import prices
from fedsite.client.ledger.budget import Budget
from fedsite.client.settings import DataSettings, PolicySettings, Settings
from fedsite.client.state_directory import BUDGET
from fedsite.client.store import Outbox
from fedsite.client.work import pipe
from fedsite.client.work.operations import Operations, Simulated
from fedsite.privacy.sampling import SeededSource, Source
from fedsite.protocol import documents, storage
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame
from fedsite.protocol.plan import RoundPlan
from fedsite.simulations.vectorised.draws import Drawn
from fedsite.simulations.vectorised.job import Job
from fedsite.telemetry.dataset import SiteData

_STATISTICS = 0x57A7  # as in material.py: the same noise
_OTHERS = {"train": 0x7E41, "evaluate": 0xE7A1, "calibrate": 0xCA11}
_MOST = 1e6  # what a simulated site allows where a real one's operator sets a bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One site: its number in the population, and its files."""

    number: int
    directory: Path

    @property
    def name(self) -> str:
        """As people see it; in the order of the numbers."""
        return f"site-{self.number:06d}"

    def make(self, federation: Federation) -> SigningKey:
        """Write what joining leaves at a site; returns its identity."""
        key = SigningKey.generate()
        storage.private_directory(self.directory)
        storage.write_atomic(self.directory / identity.FEDERATION, federation.encode())
        key.save(self.directory / identity.IDENTITY)
        about = {"site_id": key.public.id, "name": self.name}
        storage.write_atomic(self.directory / identity.SITE, documents.canonical(about))
        return key


class VirtualSite:
    """Answers instructions; its state is on the disk, so that any process may answer the next one."""

    def __init__(self, place: Place, data: SiteData, job: Job, plan: RoundPlan) -> None:
        """Read who it is; arguments are what a real site finds at home."""
        self._place = place
        self._site = identity.load(place.directory)
        self._settings = Settings(policy=rules(plan), data=DataSettings(path=str(place.directory)))
        self._worker = _Worker(Operations(Simulated(data=data, source=partial(source, place.number, data, job))))
        self._handler: Handler | None = None

    def answer(self, frame: Frame) -> Frame:
        """The signed reply to one instruction; never raises for what the centre may send."""
        if self._handler is None:
            self._handler = Handler(
                site=self._site,
                settings=self._settings,
                worker=self._worker,
                budget=partial(Budget, self._place.directory / BUDGET),
                outbox=Outbox(self._place.directory / "outbox"),
                install=_no_release,
            )
        return self._handler.handle(frame)


class _Worker:
    """The training process's operations, in this process."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations.table()

    def call(
        self, operation: str, arguments: Mapping[str, Any], blobs: Mapping[str, bytes], *, timeout_s: float
    ) -> pipe.Message:
        return self._operations[operation](arguments, blobs)


def source(number: int, data: SiteData, job: Job, operation: str, round_number: int, evaluate: bool) -> Source:
    """Draws of an operation at site `number`: the vectorised engine's where it trains, else a stream of its own."""
    if operation == "statistics":
        return SeededSource((job.seed, _STATISTICS, number))
    other = SeededSource((job.seed, _OTHERS[operation], number, round_number))
    if operation != "train":
        return other
    noised = evaluate and job.private and job.privacy.evaluation_noise > 0
    return Drawn(job, round_number, number, data.train.entity, other if noised else None)


def rules(plan: RoundPlan) -> PolicySettings:
    """Of an operator who agrees to this plan, and to no less privacy than it promises."""
    deltas = [plan.privacy.claim(unit).delta for unit in plan.privacy.units]
    return PolicySettings(
        minimum_protection=plan.protection.mode,
        cohort_min=2,
        require_privacy=plan.privacy.mode != "none",
        epsilon_max=_MOST,
        delta=max(deltas, default=PolicySettings().delta),
        steps_max=int(_MOST),
        bytes_max=1 << 33,
    )


def agrees(plan: RoundPlan) -> None:
    """Say here what every site would refuse the plan for: over the wire only a code would come.

    Raises:
        FedsiteError, PrivacyError: it is against the rules, claims less than it costs, or has no price.
    """
    settings = rules(plan)
    for reason in policy.reasons(plan, settings):
        raise reason
    for unit in plan.privacy.units:
        cost = prices.cost(plan, unit, delta=settings.delta, spent=[], of_task=None)
        policy.check_claim(float(cost["claim"]), plan, unit)


def _no_release(version: str, manifest_hash: str) -> None:
    raise ConfigError(f"release {version} in a simulation", allowed="none: nothing is installed here")
