"""A round on its way through its exchanges: one for updates that travel as they are, the stages of a secure sum else.

Sites of a secure sum are cut into the plan's groups. A site that is lost before its masked vector has come is in no
sum; a group with too few sites left falls out, and is not tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsite.server.rounds.machine import RoundOutcome, Rules
from fedsite.simulations.fleet.exchange import Closed, close
from fedsite.simulations.fleet.work import TRAINS, Stage, Work, needed
from fedsite.simulations.runs.draws import Ints, Reals

Answers = Callable[[Stage, Ints], Reals]  # of places among the asked: seconds until each answer is dealt with


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """Shapes: by site asked, in the order in which they were."""

    outcome: RoundOutcome
    reason: str
    seconds: float
    counted: NDArray[np.bool_]  # whose update is in the model
    exchanges: NDArray[np.bool_]  # [stage, asked] who was asked in each exchange
    answered: NDArray[np.bool_]  # [stage, asked] whose answer counted


def passing(work: Work, lost: Ints, answers: Answers) -> Passed:
    """Take a round through its exchanges.

    Args:
        work: the round's.
        lost: [asked] the first exchange that a site does not answer; -1: it answers all.
        answers: when they would arrive.
    """
    if work.secure:
        return _Sums(work, lost, answers).run()
    bounds = work.plan.rounds
    rules = Rules(minimum=bounds.minimum, goal=bounds.goal, deadline_s=work.stages[0].deadline_s)
    everybody = np.ones((1, len(lost)), bool)
    arrival = np.where(lost < 0, answers(work.stages[0], np.arange(len(lost))), np.inf)
    found = close(arrival, rules)
    return Passed(
        outcome=found.outcome,
        reason=found.reason,
        seconds=found.seconds,
        counted=found.counted & (found.outcome != "abandoned"),
        exchanges=everybody & (len(lost) >= bounds.minimum),
        answered=found.counted[None],
    )


class _Sums:
    """The stages of one attempt."""

    def __init__(self, work: Work, lost: Ints, answers: Answers) -> None:
        self._work, self._lost, self._answers = work, lost, answers
        terms = work.plan.protection.terms
        self._least = max(terms.min_cohort, work.plan.rounds.minimum)
        count = max(1, min(work.plan.protection.groups, len(lost) // terms.min_cohort))
        self._group = np.arange(len(lost)) % count
        self._inside = np.ones(len(lost), bool)  # still in a sum that can be opened
        self._seconds = 0.0
        self._exchanges = np.zeros((len(work.stages), len(lost)), bool)
        self._answered = np.zeros_like(self._exchanges)

    def run(self) -> Passed:
        asked = len(self._lost)
        if asked < self._least:
            return self._ended("abandoned", f"advertise: {asked} of {asked} sites answered, {self._least} needed")
        for index, stage in enumerate(self._work.stages):
            reason = self._stage(index, stage)
            if reason:
                return self._ended("abandoned", reason)
        goal = self._work.plan.rounds.goal or asked
        number = int(self._inside.sum())
        told = f"{number} of {asked} sites are in the sum"
        return self._ended("completed", told) if number >= goal else self._ended("degraded", f"{told}, goal {goal}")

    def _stage(self, index: int, stage: Stage) -> str:
        """One exchange; why nothing can come of the round, or an empty word."""
        living = np.unique(self._group[self._inside])
        places = np.flatnonzero(self._inside)
        needs = self._needs(stage, living)
        found = self._closed(index, stage, places, needs)
        self._seconds += found.seconds
        self._exchanges[index, places] = True
        self._answered[index, places] = found.counted
        # Once its masked vector has come a site is in the sum, whether or not it is heard of again.
        left = self._inside & (self._answered[index] if stage.name in ("share", "mask") else True)
        heard = np.bincount(self._group[places], weights=found.counted, minlength=len(self._group))
        fallen = [group for group in living if heard[group] < needs[group]]
        self._inside = left & ~np.isin(self._group, fallen)
        number, minimum = int(self._inside.sum()), self._work.plan.rounds.minimum
        if len(fallen) == len(living):
            most = int(max(needs[group] for group in living))
            return f"{stage.name}: {int(found.counted.sum())} of {len(places)} sites answered, {most} needed"
        if stage.name in TRAINS and number < minimum:
            return f"{stage.name}: {number} of {len(places)} sites are left, {minimum} needed"
        return ""

    def _needs(self, stage: Stage, living: Ints) -> dict[int, int]:
        """Answers without which a group's sum cannot go on."""
        sizes = np.bincount(self._group, minlength=len(self._group))
        minimum = self._work.plan.rounds.minimum if self._group.max() == 0 else 0
        return {int(group): needed(self._work.plan, int(sizes[group]), stage.name, minimum) for group in living}

    def _closed(self, index: int, stage: Stage, places: Ints, needs: dict[int, int]) -> Closed:
        gone = (self._lost[places] >= 0) & (self._lost[places] <= index)
        arrival = np.where(gone, np.inf, self._answers(stage, places))
        goal = None
        if stage.name in TRAINS and self._group.max() == 0:
            wanted = self._work.plan.rounds.goal
            goal = wanted if wanted is not None and wanted <= len(places) else None
        if stage.name == "unmask":  # closes as soon as everything can be opened
            goal = sum(needs.values())
        return close(arrival, Rules(minimum=min(needs.values()), goal=goal, deadline_s=stage.deadline_s))

    def _ended(self, outcome: RoundOutcome, reason: str) -> Passed:
        return Passed(
            outcome=outcome,
            reason=reason,
            seconds=self._seconds,
            counted=self._inside & (outcome != "abandoned"),
            exchanges=self._exchanges,
            answered=self._answered,
        )
