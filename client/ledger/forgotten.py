"""Runs that still hold what they reserved although by their own plan they are over: nobody told this site of their end.

Nothing is released here. Only the operator knows that the centre will not go on with the run; what it has spent stays
spent in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from fedsite.client.health.findings import Finding
from fedsite.client.ledger.budget_entries import Entry
from fedsite.protocol import instants
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.plan import RoundPlan

WITHOUT_PLAN: Final = timedelta(days=1)  # of a run that was never accepted here, or of which nothing was heard for long
_WORK: Final = 2  # things that a round may ask its sites for, one after the other: training, and an evaluation
_AROUND: Final = 6  # beside the rounds: prepare twice, statistics, calibration, the last evaluation, the release
_STAGES: Final = 4  # of a secure sum that read no data


def longest(plan: RoundPlan) -> timedelta:
    """How long a run may take at most where nobody resumes it: every wait and every deadline used up."""
    rounds, protection = plan.rounds, plan.protection
    one = rounds.deadline_s
    if protection.mode == "secagg":
        one = (rounds.deadline_s + _STAGES * protection.stage_s) * (1 + protection.retries)
    # An abandoned round is asked again, at most `patience` in a row.
    tries = rounds.count * rounds.patience
    return timedelta(seconds=tries * (rounds.wait_s + _WORK * one) + rounds.wait_s + _AROUND * one)


def forgotten(entries: Sequence[Entry], plan_of: Callable[[str], RoundPlan | None], now: datetime) -> list[str]:
    """The ids of the runs that are open and over, oldest first.

    Args:
        entries: of the whole budget.
        plan_of: the plan that a run was accepted with; None where it is not kept.
        now: UTC.
    """
    begun: dict[str, str] = {}
    for entry in entries:
        if entry.finished is None:
            begun.setdefault(entry.run_id, entry.created)
    return [run_id for run_id, since in begun.items() if now > _end(since, plan_of(run_id))]


def finding(runs: Sequence[str]) -> Finding | None:
    """Whether runs hold what they reserved although by their own plan they are over."""
    if not runs:
        return None
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return Finding(
        code="reservation",
        severity="warning",
        title="a run that is over still holds privacy budget" if len(runs) == 1 else f"{len(runs)} such runs do",
        text=f"{runs[0]}{more}: this site never heard of its end, and its plan gives it no more time",
        remedy=f"if the central team does not go on with it: end the agent, then fedsite privacy --close {runs[0]}",
        depends_on=("ledger",),
    )


def plan_of(data: bytes | None) -> RoundPlan | None:
    """A kept plan; None for none, or for one that cannot be read."""
    try:
        return None if data is None else RoundPlan.parse(data)
    except FedsiteError:
        return None


def _end(since: str, plan: RoundPlan | None) -> datetime:
    try:
        return instants.read(since) + (WITHOUT_PLAN if plan is None else longest(plan))
    except OverflowError:
        return datetime.max.replace(tzinfo=instants.read(since).tzinfo)
