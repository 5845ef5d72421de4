"""Which sites take part: those that are online, accepted the plan, and have not been sent away.

A site that says `approval` or `not-now` rests: it is in no round, and is asked again whether it accepts the plan, with
growing pauses, until it does. A person may have to be found first, or the night to come.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedsite.protocol.errors import ASK_LATER, RefusalCode
from fedsite.server.link.transport import SiteLink
from fedsite.server.rounds import evaluation
from fedsite.server.rounds.evaluation import Total
from fedsite.server.rounds.machine import Status
from fedsite.server.rounds.question import Question, SiteAnswer, Upcoming
from fedsite.server.rounds.replies import Expected
from fedsite.server.rounds.session import RunEndedError, Session

POLL_S = 0.2  # between looks at who is online, seconds
LATE_S = 20.0  # a site that comes late has this long to accept the plan, seconds
SETTLE_S = 60.0  # where no round can go on without it: it may have to start its training process and read its data
TRIES = 3  # times a silent site is asked to accept the plan
AGAIN_S = 2.0  # before a site that rests is asked again the first time, seconds; then twice as long each time
AGAIN_MOST_S = 60.0
LONGER = "rounds.wait_s=3600"  # what somebody may type who has people to wait for
LATER = {RefusalCode.APPROVAL: "waiting for their operators", RefusalCode.NOT_NOW: "at work at another time"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rest:
    """A site that is to be asked later."""

    code: RefusalCode
    due: float  # on the driver's clock
    pause_s: float  # before it


class Cohort:
    """Keeps who accepted, and asks newcomers."""

    def __init__(
        self, session: Session, shuffle: Callable[[list[SiteLink]], None] = secrets.SystemRandom().shuffle
    ) -> None:
        self._session = session
        self._shuffle = shuffle
        self._accepted: set[str] = set()
        self._away: set[str] = set()  # refused the plan, or answered with what is no answer
        self._tries: dict[str, int] = {}
        self._resting: dict[str, _Rest] = {}  # they may have accepted before

    def gather(self, following: Upcoming | None = None) -> None:
        """Wait for sites, and have them accept the plan.

        Args:
            following: the sum that comes next; sites send their keys for it with their answer.

        Raises:
            RunEndedError: too few came or accepted, or the run was stopped.
        """
        plan, minimum = self._session.plan.rounds, self._session.minimum
        wanted = max(minimum, plan.goal or 0)
        end = self._session.clock() + plan.wait_s
        online = self._wait(self._session.sites, wanted, end)
        if len(online) < minimum:
            reason = f"{len(online)} sites online after {plan.wait_s:g} s, minimum {minimum}"
            raise RunEndedError("failed", f"{reason}; next: fedsite sites list, or launch with {LONGER} to wait longer")
        self._prepare(online, following, deadline_s=plan.deadline_s)
        self._settled(wanted, end, following)
        accepted = len(self._accepted - self._resting.keys())
        if accepted < minimum:
            reason = f"{accepted} of {len(online)} sites accepted, minimum {minimum}"
            raise RunEndedError("failed", f"the plan was not accepted: {reason}{self._later_in_words()}")

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
        self.heard(result.answers)
        session.check_stop()
        if result.state.outcome == "abandoned":
            raise RunEndedError("failed", f"the normalisation statistics were not summed: {result.state.reason}")
        return total

    def round(self) -> list[SiteLink]:
        """The sites to ask now, best first: newcomers are asked to accept the plan before."""
        online = self._session.sites()
        newcomers = [site for site in online if self._may_ask(site)]
        if newcomers:
            self._prepare(newcomers, None, deadline_s=self._late_s)
        ready = self._settled(self._session.minimum, self._session.clock() + self._session.plan.rounds.wait_s, None)
        if self._session.plan.rounds.goal is not None:
            # Nobody can foresee, or wish for, a place in a round.
            self._shuffle(ready)
        return ready

    def heard(self, answers: Mapping[str, SiteAnswer]) -> None:
        """Take note of sites that work at another time: they rest."""
        for site_id, answer in answers.items():
            if answer.code in ASK_LATER:
                self._rest(site_id, RefusalCode(answer.code))

    def everybody(self) -> list[SiteLink]:
        """Sites online now that accepted the plan and do not rest."""
        return [site for site in self.members() if site.site_id not in self._resting]

    def members(self) -> list[SiteLink]:
        """Sites online now that accepted the plan, those that rest among them."""
        return [site for site in self._session.sites() if site.site_id in self._accepted]

    @property
    def _late_s(self) -> float:
        return min(LATE_S, self._session.plan.rounds.deadline_s)

    def _may_ask(self, site: SiteLink) -> bool:
        rest = self._resting.get(site.site_id)
        if rest is not None:
            return self._session.clock() >= rest.due
        known = self._accepted | self._away
        return site.site_id not in known and self._tries.get(site.site_id, 0) < TRIES

    def _rest(self, site_id: str, code: RefusalCode) -> None:
        """Ask it again after a pause: twice as long as the last one, if it has rested since then."""
        before = self._resting.get(site_id)
        pause = AGAIN_S if before is None else min(2 * before.pause_s, AGAIN_MOST_S)
        self._resting[site_id] = _Rest(code=code, due=self._session.clock() + pause, pause_s=pause)

    def _resting_now(self) -> dict[str, str]:
        """What the sites that rest said, by name."""
        found = {self._session.record.sites[site].name: str(rest.code) for site, rest in self._resting.items()}
        return dict(sorted(found.items()))

    def _later_in_words(self) -> str:
        """Who rests, why, and what the central team can do about it; empty where nobody does."""
        resting, told = self._resting_now(), ""
        for code, words in LATER.items():
            names = [name for name, said in resting.items() if said == code]
            told += f"; {words} ({code}): {', '.join(names)}" if names else ""
        if not told:
            return ""
        again = ""
        if RefusalCode.APPROVAL in resting.values():
            again = ", or the same launch again after they approved (with policy.approval once it needs nobody then)"
        return f"{told}; next: launch with {LONGER} to wait longer{again}"

    def _settled(self, wanted: int, end: float, following: Upcoming | None) -> list[SiteLink]:
        """Sites that are ready, waiting for `wanted` until `end` where some are away or rest."""

        def look() -> list[SiteLink]:
            ready = self.everybody()
            resting = [site for site in self._session.sites() if site.site_id in self._resting]
            due = [site for site in resting if self._may_ask(site)]
            if len(ready) < wanted and due:
                self._prepare(due, following, deadline_s=min(SETTLE_S, self._session.plan.rounds.deadline_s))
                return self.everybody()
            return ready

        # Who accepted and went away may come back, who rests may change its mind; anybody else was asked.
        return self._wait(look, wanted, end, lambda: not self._resting and len(self._accepted) < wanted)

    def _wait(
        self, look: Callable[[], list[SiteLink]], wanted: int, end: float, hopeless: Callable[[], bool] = lambda: False
    ) -> list[SiteLink]:
        """What `look` finds, once that is enough, or hopeless, or the time is over; a wait is told when it begins."""
        session, told = self._session, False
        while True:
            found = look()
            left = end - session.clock()
            if len(found) >= wanted or left <= 0 or hopeless():
                return found
            if not told:
                told = True
                session.journal.record(
                    "waiting", ready=len(found), wanted=wanted, seconds=round(left, 1), resting=self._resting_now()
                )
            session.check_stop()
            session.wait(POLL_S)

    @property
    def accepted(self) -> frozenset[str]:
        """Ids of the sites that have accepted the plan, online or not."""
        return frozenset(self._accepted)

    def _prepare(self, sites: list[SiteLink], following: Upcoming | None, *, deadline_s: float) -> None:
        """Ask sites whether they accept the plan; whoever answers in time is heard."""
        session = self._session
        question = Question(
            kind="prepare",
            round=0,
            rules=session.rules(minimum=0, deadline_s=deadline_s),
            blobs={"plan": session.plan.encode()},
            following=following,
        )
        result = session.ask("prepare", question, sites)
        for site_id, answer in result.answers.items():
            session.record.sites[site_id].prepared = str(answer.status)
            if answer.code in ASK_LATER:
                self._rest(site_id, RefusalCode(answer.code))
                continue
            self._tries[site_id] = self._tries.get(site_id, 0) + 1
            if answer.status is Status.OK or answer.code == RefusalCode.REPLAYED:
                # Replayed: it had answered before, but the answer was lost. If it was a no, it will say so again.
                self._accepted.add(site_id)
                self._resting.pop(site_id, None)
            elif answer.status in (Status.REFUSED, Status.FAILED, Status.INVALID):
                self._away.add(site_id)
                self._resting.pop(site_id, None)
        session.check_stop()
        session.journal.record(
            "prepared",
            accepted=[session.record.sites[site].name for site in result.answers if site in self._accepted],
            refused={session.record.sites[site].name: str(code) for site, code in result.state.codes.items()},
        )


def statistics_sum(session: Session) -> Upcoming:
    """The sum that `statistics` asks for."""
    shapes = evaluation.statistics_shapes(session.task)
    return Upcoming(purpose="statistics", round=0, expected=Expected(required=shapes))
