"""The result of secure sums from the results of their stages: who was in, where the others were lost, what it cost."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from fedsite.protocol.errors import RefusalCode
from fedsite.server.rounds.machine import Ignored, RoundOutcome, RoundState, Status
from fedsite.server.rounds.question import Question, Result, SiteAnswer
from fedsite.server.sums.stages import Stages


def merged(question: Question, tried: Sequence[Stages], *, started: float, seconds: float) -> Result:
    """One result for all attempts at a question.

    Args:
        question: as it was asked.
        tried: its attempts; only the last can have opened anything.
        started: on the driver's clock.
        seconds: it took.
    """
    last = tried[-1]
    inside = {site.hex() for group in last.living for site in group.sum.u3}
    answers: dict[str, SiteAnswer] = {}
    wrong: dict[str, RefusalCode] = {}
    for stages in tried:
        for stage, result in stages.trips:
            for site, answer in result.answers.items():
                answers[site] = _added(answers.get(site), answer, paid=stage == "mask")
        for site in stages.wrong & answers.keys():
            answers[site] = dataclasses.replace(answers[site], status=Status.INVALID, code=RefusalCode.MALFORMED)
            wrong[site] = RefusalCode.MALFORMED
    for site, answer in answers.items():
        if site in inside:
            answers[site] = dataclasses.replace(answer, status=Status.OK, code=None)
        elif answer.status is Status.OK:
            answers[site] = dataclasses.replace(answer, status=Status.UNUSED)
    results = [result for stages in tried for _, result in stages.trips]
    told = [result.state.codes for result in results]
    ignored: Counter[Ignored] = Counter()
    for result in results:
        ignored.update(result.state.ignored)
    outcome, reason = _outcome(question, last, len(inside), len(answers))
    state = RoundState(
        number=question.round,
        attempt=results[-1].state.attempt if results else 1,
        rules=question.rules,
        opened_at=started,
        sites={site: answer.status for site, answer in answers.items()},
        codes={site: code for codes in (*told, wrong) for site, code in codes.items() if site not in inside},
        ignored=dict(ignored),
        outcome=outcome,
        reason=reason,
    )
    late = [item for result in results for item in result.late]
    return Result(state=state, seconds=seconds, answers=answers, late=late)


def at_fault(stages: Stages) -> set[str]:
    """Ids of the sites that said no, or sent what is no answer: asking them again gives the same."""
    no = (Status.REFUSED, Status.FAILED, Status.INVALID)
    found = {site for _, result in stages.trips for site, answer in result.answers.items() if answer.status in no}
    return found | stages.wrong


def of_sites(stages: Stages, sites: Collection[str]) -> list[dict[str, Any]]:
    """What each stage cost these sites."""
    found = []
    for stage, result in stages.trips:
        answers = [answer for site, answer in result.answers.items() if site in sites]
        if answers:
            found.append(
                {
                    "name": stage,
                    "seconds": round(result.seconds, 4),
                    "bytes_up": sum(answer.bytes_up for answer in answers),
                    "bytes_down": sum(answer.bytes_down for answer in answers),
                }
            )
    return found


def _added(before: SiteAnswer | None, now: SiteAnswer, *, paid: bool) -> SiteAnswer:
    """A site's part so far and in one more stage; only the one that reads data can have cost it anything."""
    if before is None:
        return dataclasses.replace(now, charged=now.charged and paid)
    return SiteAnswer(
        status=now.status,
        code=now.code,
        seconds=before.seconds + now.seconds,
        bytes_up=before.bytes_up + now.bytes_up,
        bytes_down=before.bytes_down + now.bytes_down,
        charged=before.charged or (now.charged and paid),
    )


def _outcome(question: Question, last: Stages, inside: int, asked: int) -> tuple[RoundOutcome, str]:
    if not inside:
        return "abandoned", last.reason() or "no site to ask"
    fallen = [group for group in last.groups if group.failed]
    aside = f"; {len(fallen)} of {len(last.groups)} groups fell out: {last.reason()}" if fallen else ""
    goal = asked if question.rules.goal is None else question.rules.goal
    if inside >= goal:
        return "completed", f"{inside} of {asked} sites are in the sum{aside}"
    return "degraded", f"{inside} of {asked} sites are in the sum, goal {goal}{aside}"
