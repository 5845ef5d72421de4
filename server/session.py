"""What every phase of a run has at hand, and how a run ends early."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fedsite.protocol.plan import RoundPlan
from fedsite.server.exchange import Exchange, Question, Result, Take
from fedsite.server.journal import Journal
from fedsite.server.link import Link, SiteLink
from fedsite.server.record import Record
from fedsite.server.rounds import Rules
from fedsite.telemetry.task import Task

RunOutcome = Literal["completed", "failed", "stopped"]


class RunEndedError(Exception):
    """The run is over before its last phase."""

    def __init__(self, outcome: RunOutcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome: RunOutcome = outcome
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One driver's hold on one run."""

    plan: RoundPlan
    task: Task
    link: Link
    exchange: Exchange
    journal: Journal
    record: Record
    stopping: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic  # seconds
    wait: Callable[[float], None] = time.sleep

    def ask(self, phase: str, question: Question, sites: list[SiteLink], take: Take | None = None) -> Result:
        """One exchange, recorded under its phase.

        The caller records what the sites were asked for, and then looks whether the run goes on (`check_stop`): a site
        is charged for a question also when nobody waited for its answer.
        """
        for site in sites:
            self.record.site(site)
        result = self.exchange.ask(question, sites, take)
        self.record.exchange(phase, result)
        return result

    def check_stop(self) -> None:
        """End the run here if somebody asked for it.

        Raises:
            RunEndedError: somebody did.
        """
        if self.stopping():
            raise RunEndedError("stopped", "the run was stopped")

    def rules(self, *, minimum: int | None = None, deadline_s: float | None = None) -> Rules:
        """Bounds of an exchange that asks everybody."""
        return Rules(
            minimum=self.plan.rounds.minimum if minimum is None else minimum,
            deadline_s=self.plan.rounds.deadline_s if deadline_s is None else deadline_s,
        )
