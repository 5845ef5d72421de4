"""Sites in memory behind the round loop's Link, on a clock of their own: nothing sleeps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedsite.protocol import ids, sealing, weights
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, read_header
from fedsite.protocol.plan import (
    CONTROLLED,
    SCHEMA,
    LocalPlan,
    ModelPlan,
    PrivacyPlan,
    ProtectionPlan,
    RoundPlan,
    RoundsPlan,
    StrategyPlan,
)
from fedsite.server.audit_log import Log, RunTrail
from fedsite.server.link.transport import Failure, SiteLink
from fedsite.server.rounds.coordinator import Coordinator, Publisher
from fedsite.server.runs.folder import Launch, RunDirectory
from fedsite.server.runs.journal import Journal, Reader
from tests.authority import AUTHORITY
from tests.simulated_site import TASK, SimulatedSite

INITIAL = {"w": np.zeros((2, 2), dtype=np.float32), "b": np.zeros(1, dtype=np.float32)}
LAST_FRAME = 1e9  # seconds: later than any round


@dataclass
class SimulatedClock:
    """Seconds that pass when somebody waits."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def make_federation(key: SigningKey) -> Federation:
    """A federation of the tests' authority."""
    return Federation(
        id=key.public.id,
        name="test",
        address="localhost:1",
        ca_certificate=AUTHORITY.certificate,
        signing_key=key.public.text,
    )


class SimulatedFleet:
    """Implements Link: messages arrive at once, replies after each site's delay."""

    def __init__(self, names: Sequence[str] = ("north", "south", "west")) -> None:
        self.key = SigningKey.generate()
        self.federation = make_federation(self.key)
        self.clock = SimulatedClock()
        self.all = [SimulatedSite(name, self.federation, target=float(i)) for i, name in enumerate(names, start=1)]
        self.unreachable: set[str] = set()
        self.on_send: Callable[[Frame], None] = lambda frame: None
        self._waiting: list[tuple[float, str, Frame]] = []
        self._sent = 0

    def __getitem__(self, name: str) -> SimulatedSite:
        return next(site for site in self.all if site.name == name)

    def sites(self) -> list[SiteLink]:
        """Those that are online."""
        return [site.link for site in self.all if site.online]

    def send(self, messages: Sequence[tuple[SiteLink, Frame]], expires_s: float) -> list[str | None]:
        """Deliver now; what the site answers waits for its time."""
        found: list[str | None] = []
        for link, frame in messages:
            if link.name in self.unreachable:
                found.append(None)
                continue
            self._sent += 1
            self.on_send(frame)
            site = self[link.name]
            site.sent.append(read_header(frame.header))
            for reply in site.receive(frame) if site.online else []:
                self._waiting.append((self.clock.now + site.delay_s, str(self._sent), reply))
            found.append(str(self._sent))
        return found

    def poll(self, message_ids: Collection[str], wait_s: float) -> Iterator[tuple[str, Frame | Failure]]:
        """Replies that are due, in order; time passes when there is none."""
        due = min((at for at, message, _ in self._waiting if message in message_ids), default=LAST_FRAME)
        self.clock.now = max(self.clock.now, min(due, self.clock.now + max(wait_s, 1e-3)))
        for _, message, reply in self._take(message_ids):
            yield message, reply

    def late(self, message_ids: Collection[str]) -> dict[str, bool]:
        """Those that have been answered by now."""
        return {message: True for _, message, _ in self._take(message_ids)}

    def _take(self, message_ids: Collection[str]) -> list[tuple[float, str, Frame]]:
        due = [item for item in self._waiting if item[0] <= self.clock.now and item[1] in message_ids]
        self._waiting = [item for item in self._waiting if item not in due]
        return sorted(due, key=lambda item: item[:2])


@dataclass(kw_only=True)
class Played:
    """A run that is over."""

    result: dict[str, Any]
    events: list[dict[str, Any]]
    run: RunDirectory

    def kinds(self) -> list[str]:
        """Kinds of the events, in order."""
        return [event["kind"] for event in self.events]


@dataclass(kw_only=True)
class Play:
    """A run over a simulated fleet; fields are edits of the usual plan."""

    fleet: SimulatedFleet
    folder: Path
    rounds: RoundsPlan = field(default_factory=lambda: RoundsPlan(count=2, minimum=2, deadline_s=10.0, wait_s=5.0))
    privacy: PrivacyPlan = field(default_factory=PrivacyPlan)
    protection: ProtectionPlan = field(default_factory=lambda: ProtectionPlan(mode="sealed"))
    strategy: StrategyPlan = field(default_factory=StrategyPlan)
    local: LocalPlan = field(default_factory=lambda: LocalPlan(steps=1, sampling_rate=0.5))
    publish: Publisher | None = None
    stopping: Callable[[], bool] = lambda: False
    leaving: Callable[[], bool] = lambda: False
    initial: dict[str, Any] = field(default_factory=lambda: dict(INITIAL))
    task: dict[str, Any] = field(default_factory=lambda: dict(TASK))
    options: dict[str, Any] = field(default_factory=dict)
    log: Log | None = None  # the server's audit log

    def plan(self) -> RoundPlan:
        """The plan of a new run."""
        return RoundPlan(
            schema=CONTROLLED if self.strategy.control else SCHEMA,
            federation=self.fleet.federation.id,
            run_id=ids.ulid(),
            created="2026-01-01T00:00:00Z",
            task=self.task,
            model=ModelPlan(name="mlp", options=self.options, init_hash=weights.digest(self.initial), parameters=5),
            local=self.local,
            privacy=self.privacy,
            protection=self.protection,
            strategy=self.strategy,
            rounds=self.rounds,
        )

    def run(self, epoch: int = 1, again: RunDirectory | None = None) -> Played:
        """Drive it to its end."""
        if again is None:
            plan = self.plan()
            run = RunDirectory(self.folder / plan.run_id)
            run.create(plan, self.initial, Launch(trained=tuple(sorted(self.initial))))
        else:
            run = again
        trail = RunTrail(self.log, run.run_id)
        journal = Journal(run.journal_file, run.run_id)
        journal.audit = trail.mirror
        coordinator = Coordinator(
            run=run,
            link=self.fleet,
            journal=journal,
            key=self.fleet.key,
            run_key=sealing.make_run_key() if self.protection.mode == "sealed" else None,
            epoch=epoch,
            publish=self.publish,
            trail=trail,
            stopping=self.stopping,
            leaving=self.leaving,
            clock=self.fleet.clock,
            wait=self.fleet.clock.wait,
        )
        try:
            result = coordinator.run()
        finally:
            journal.close()
        return Played(result=result, events=Reader(run.journal_file).events(), run=run)

    def with_rounds(self, **changes: Any) -> Play:
        """The same with other bounds."""
        return replace(self, rounds=replace(self.rounds, **changes))
