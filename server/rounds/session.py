"""What every phase of a run has at hand, and how a run ends early."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from fedsite.protocol import certified
from fedsite.protocol.plan import RoundPlan
from fedsite.server.link.transport import Link, SiteLink
from fedsite.server.rounds.exchange import Exchange
from fedsite.server.rounds.machine import Rules
from fedsite.server.rounds.question import Answer, Contribution, Question, Result, Take
from fedsite.server.runs.journal import Journal
from fedsite.server.runs.record import Record
from fedsite.server.sums.secagg import SecureSums, asks_for_sum
from fedsite.telemetry.task import Task

RunOutcome = Literal["completed", "failed", "stopped"]

_log = logging.getLogger(__name__)


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
    sums: SecureSums
    journal: Journal
    record: Record
    stopping: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic  # seconds
    now: Callable[[], float] = time.time  # seconds since 1970
    wait: Callable[[float], None] = time.sleep
    _without: set[str] = field(default_factory=set)  # ids of sites that were named for having no certified identity

    @property
    def secure(self) -> bool:
        """Whether values leave the sites masked, in sums."""
        return self.plan.protection.mode == "secagg"

    @property
    def minimum(self) -> int:
        """Sites without which nothing can be summed or averaged."""
        least = self.plan.rounds.minimum
        return max(least, self.plan.protection.terms.min_cohort) if self.secure else least

    def sites(self) -> list[SiteLink]:
        """Sites online that can take part; for a secure sum a site has to show the others who it is.

        A site whose shares left a sum closed is in no other sum of this driver.
        """
        online = [site for site in self.link.sites() if site.site_id not in self.sums.sent_away]
        return [site for site in online if not self.secure or self._certified(site)]

    def ask(self, phase: str, question: Question, sites: list[SiteLink], take: Take | None = None) -> Result:
        """One exchange, or secure sums in its place, recorded under its phase.

        The caller records what the sites were asked for, and then looks whether the run goes on (`check_stop`): a site
        is charged for a question also when nobody waited for its answer.
        """
        for site in sites:
            self.record.site(site)
        if asks_for_sum(self.plan, question):
            result = self.sums.ask(question, sites, take)
        else:
            result = self._exchange(question, sites, take)
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

    def _exchange(self, question: Question, sites: list[SiteLink], take: Take | None) -> Result:
        """One exchange whose answers the server reads one by one; keys for a sum to come may ride on them."""

        def each(answer: Answer) -> None:
            if self.secure:
                self.sums.adverts.take(question, answer)
            if take is not None:
                take(Contribution(source=answer.site.site_id, values=answer.values, sites=1))

        carried = self.sums.adverts.carried(question) if self.secure else question
        result = self.exchange.ask(carried, sites, each)
        if self.secure:
            self.sums.adverts.sent(question, result)
        return result

    def _certified(self, site: SiteLink) -> bool:
        """Whether its certified identity outlives a round: the others would refuse a whole roster with an old one."""
        until = datetime.fromtimestamp(self.now(), UTC) + timedelta(
            seconds=self.plan.rounds.deadline_s + 4 * self.plan.protection.stage_s
        )
        good = len(site.certified) == certified.SIZE and certified.expires(site.certified) > until
        if not good and site.site_id not in self._without:
            self._without.add(site.site_id)
            _log.warning("site %s has no certified identity that is valid: it joins again to take part", site.name)
        return good
