"""The rounds of a run on a fleet, one after the other: what the engine asks, and what came of it all."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedsite.simulations.fleet.model import Fleet, Timing
from fedsite.simulations.fleet.work import Work
from fedsite.simulations.runs.draws import Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a run costs in time and bytes, as foreseen. Bytes by site and round are of sites that were asked."""

    calibration: str  # what was measured
    minutes: float  # from the launch to the last round's end, and the release
    seconds_per_round: float  # median
    bytes_up_per_site_round: float  # mean
    bytes_down_per_site_round: float
    bytes_up: float  # of the whole run, all sites
    bytes_down: float
    outcomes: Mapping[str, int]  # rounds by outcome
    asked: float  # sites, mean by round
    present: float
    late: int  # rounds that took longer than the plan's deadline, or ended by it
    ended_early: bool  # as many rounds in a row were abandoned as the plan bears


class Course:
    """Keeps time; `present` is called once for each round, in order, also for rounds that were computed before."""

    def __init__(self, fleet: Fleet, work: Work) -> None:
        self._fleet, self._binding = fleet, fleet.spec.binding
        unbound = tuple(dataclasses.replace(stage, deadline_s=math.inf) for stage in work.stages)
        self._work = work if self._binding else dataclasses.replace(work, stages=unbound)
        self._timings: list[Timing] = []
        self.at_s = 0.0  # seconds since the run began

    @property
    def timings(self) -> tuple[Timing, ...]:
        """Of the rounds so far."""
        return tuple(self._timings)

    def present(self, number: int, drawn: Ints) -> Ints:
        """Of the sites drawn for a round those whose update is in the model: what the engine's `present` is."""
        found = self._fleet.round(number, np.asarray(drawn, np.int64), self._work, at_s=self.at_s)
        self._timings.append(found)
        self.at_s += found.seconds
        # Sites beyond the goal are asked to be left out; nobody else is by a fleet that was not asked for.
        return found.present if self._binding or len(found.present) else drawn

    @property
    def failed(self) -> bool:
        """Whether production would have given up: `rounds.patience` abandoned rounds in a row."""
        last = [timing.outcome for timing in self._timings[-self._work.plan.rounds.patience :]]
        return len(last) == self._work.plan.rounds.patience and set(last) == {"abandoned"}

    @property
    def outlook(self) -> Outlook:
        """Of the rounds so far."""
        rounds, asked = self._timings, sum(len(timing.asked) for timing in self._timings)
        up, down = (float(sum(getattr(one, name).sum() for one in rounds)) for name in ("bytes_up", "bytes_down"))
        return Outlook(
            calibration=self._fleet.measured.source,
            minutes=(sum(one.seconds for one in rounds) + self._around()) / 60.0,
            seconds_per_round=float(np.median([one.seconds for one in rounds])) if rounds else 0.0,
            bytes_up_per_site_round=up / max(asked, 1),
            bytes_down_per_site_round=down / max(asked, 1),
            bytes_up=up,
            bytes_down=down,
            outcomes=dict(Counter(one.outcome for one in rounds)),
            asked=asked / max(len(rounds), 1),
            present=sum(len(one.present) for one in rounds) / max(len(rounds), 1),
            late=sum(one.seconds - one.waited >= self._work.plan.rounds.deadline_s for one in rounds),
            ended_early=self.failed,
        )

    def participations(self, sites: int) -> Ints:
        """Rounds in which each site was asked, [site]: what a site that was asked released is spent."""
        found = np.zeros(sites, np.int64)
        for timing in self._timings:
            found[timing.asked] += 1
        return found

    def _around(self) -> float:
        """Seconds before the first round and after the last: plan and data, sums beside the rounds, the release."""
        if not self._timings:
            return 0.0
        measured, plan = self._fleet.measured, self._work.plan
        sites = max(len(one.asked) for one in self._timings)
        exchanges = self._work.sums * len(self._work.stages)
        release = measured.release_s if plan.release.enabled else 0.0
        if self._fleet.spec.hosts == "shared":
            return (measured.start_s + exchanges * measured.exchange_s) * sites / measured.cores + release
        return measured.start_s + exchanges * (measured.agent_s + sites * measured.server_s) + release
