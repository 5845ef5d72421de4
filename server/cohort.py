"""Which sites take part: those that are online, accepted the plan, and have not been sent away."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from fedsite.protocol.errors import RefusalCode
from fedsite.server import evaluation
from fedsite.server.evaluation import Total
from fedsite.server.link import SiteLink
from fedsite.server.question import Question, Result, Upcoming
from fedsite.server.replies import Expected
from fedsite.server.rounds import Status
from fedsite.server.session import RunEndedError, Session

POLL_S = 0.2  # between looks at who is online, seconds
LATE_S = 20.0  # a site that comes late has this long to accept the plan, seconds
TRIES = 3  # times a silent site is asked to accept the plan


class Cohort:
    """Keeps who accepted, and asks newcomers."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._accepted: set[str] = set()
        self._away: set[str] = set()  # refused the plan, or answered with what is no answer
        self._tries: dict[str, int] = {}

    def gather(self, following: Upcoming | None = None) -> None:
        """Wait for sites, and have them accept the plan.

        Args:
            following: the sum that comes next; sites send their keys for it with their answer.

        Raises:
            RunEndedError: too few came or accepted, or the run was stopped.
        """
        plan, minimum = self._session.plan.rounds, self._session.minimum
        wanted = max(minimum, plan.goal or 0)
        online = self._wait(self._session.sites, wanted)
        if len(online) < minimum:
            reason = f"{len(online)} sites online after {plan.wait_s:g} s, minimum {minimum}"
            raise RunEndedError("failed", reason)
        result = self._prepare(online, following, minimum=minimum, deadline_s=plan.deadline_s)
        if result.state.outcome == "abandoned":
            raise RunEndedError("failed", f"the plan was not accepted: {result.state.reason}")

    def statistics(self, following: Upcoming) -> Total:
        """The sum of the normalisation statistics of everybody who accepted; asked once in a run.

        Raises:
            RunEndedError: too few answered, or the run was stopped.
        """
        session = self._session
        total = Total(evaluation.STATISTICS)
        question = Question(
            kind="statistics",
            round=0,
            rules=session.rules(),
            expected=statistics_sum(session).expected,
            following=following,
        )
        everybody = self.everybody()
        result = session.ask("statistics", question, everybody, lambda found: total.add(found.values, found.sites))
        for site_id, answer in result.answers.items():
            session.record.sites[site_id].statistics |= answer.charged
        session.check_stop()
        if result.state.outcome == "abandoned":
            raise RunEndedError("failed", f"the normalisation statistics were not summed: {result.state.reason}")
        return total

    def round(self) -> list[SiteLink]:
        """The sites to ask now, best first: newcomers are asked to accept the plan before."""
        online = self._session.sites()
        newcomers = [site for site in online if self._may_ask(site)]
        if newcomers:
            deadline = min(LATE_S, self._session.plan.rounds.deadline_s)
            self._prepare(newcomers, None, minimum=0, deadline_s=deadline)
        ready = self._wait(self._ready, self._session.minimum)
        if self._session.plan.rounds.goal is not None:
            # Nobody can foresee, or wish for, a place in a round.
            secrets.SystemRandom().shuffle(ready)
        return ready

    def everybody(self) -> list[SiteLink]:
        """Sites online now that accepted the plan."""
        return self._ready()

    def _ready(self) -> list[SiteLink]:
        return [site for site in self._session.sites() if site.site_id in self._accepted]

    def _may_ask(self, site: SiteLink) -> bool:
        known = self._accepted | self._away
        return site.site_id not in known and self._tries.get(site.site_id, 0) < TRIES

    def _wait(self, look: Callable[[], list[SiteLink]], wanted: int) -> list[SiteLink]:
        session = self._session
        end = session.clock() + session.plan.rounds.wait_s
        while True:
            found = look()
            if len(found) >= wanted or session.clock() >= end:
                return found
            session.check_stop()
            session.wait(POLL_S)

    def _prepare(self, sites: list[SiteLink], following: Upcoming | None, *, minimum: int, deadline_s: float) -> Result:
        session = self._session
        question = Question(
            kind="prepare",
            round=0,
            rules=session.rules(minimum=minimum, deadline_s=deadline_s),
            blobs={"plan": session.plan.encode()},
            following=following,
        )
        result = session.ask("prepare", question, sites)
        for site_id, answer in result.answers.items():
            session.record.sites[site_id].prepared = str(answer.status)
            self._tries[site_id] = self._tries.get(site_id, 0) + 1
            if answer.status is Status.OK or answer.code == RefusalCode.REPLAYED:
                # Replayed: it had answered before, but the answer was lost. If it was a no, it will say so again.
                self._accepted.add(site_id)
            elif answer.status in (Status.REFUSED, Status.FAILED, Status.INVALID):
                self._away.add(site_id)
        session.check_stop()
        session.journal.record(
            "prepared",
            accepted=[session.record.sites[site].name for site in result.answers if site in self._accepted],
            refused={session.record.sites[site].name: str(code) for site, code in result.state.codes.items()},
        )
        return result


def statistics_sum(session: Session) -> Upcoming:
    """The sum that `statistics` asks for."""
    shapes = evaluation.statistics_shapes(session.task)
    return Upcoming(purpose="statistics", round=0, expected=Expected(required=shapes))
