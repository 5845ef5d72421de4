"""The rounds of a run on a fleet, one after the other: what the engine asks, and what came of it all.

`begin(…).present` is what the engine's `simulate` takes as `present`; `outlook` tells minutes and bytes afterwards.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedsite.protocol.plan import RoundPlan
from fedsite.simulations.draws import Ints
from fedsite.simulations.fleet import probe, work
from fedsite.simulations.fleet.model import Fleet, Timing
from fedsite.simulations.fleet.spec import FleetSpec
from fedsite.simulations.fleet.work import Work
from fedsite.simulations.vectorised import randomness
from fedsite.simulations.vectorised.job import Epochs
from fedsite.simulations.vectorised.population import Population


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


def begin(
    plan: RoundPlan, population: Population, spec: FleetSpec, *, cohort: int, epochs: Epochs | None = None
) -> Course:
    """Start the course of a plan on a fleet; where no speed is given, this machine is tried for a moment.

    Args:
        plan: the run's; its seed draws everything.
        population: its sites.
        spec: the fleet's.
        cohort: sites that a round wants.
        epochs: where a published experiment's batches replace the plan's.

    Raises:
        ConfigError: the calibration is no report of a demo.
        DataError: the trace cannot be read.
    """
    alone = None
    if spec.speed.windows_s is None:
        alone = probe.windows_s(plan, int(np.median(population.counts)))
    fleet = Fleet.of(spec, plan.seed, alone_s=alone)
    return Course(fleet, work.work(plan, population, cohort=cohort, epochs=epochs), wanted=cohort)


class Course:
    """Keeps time; rounds that were computed before this course began are gone through when it is asked for the next."""

    def __init__(self, fleet: Fleet, work: Work, *, wanted: int | None = None) -> None:
        """`wanted` sites in a round; all of them, where not given."""
        self._fleet, self._binding = fleet, fleet.spec.binding
        unbound = tuple(dataclasses.replace(stage, deadline_s=math.inf) for stage in work.stages)
        self._work = work if self._binding else dataclasses.replace(work, stages=unbound)
        self._sites = len(work.windows)
        self._wanted = min(wanted or self._sites, self._sites)
        self._timings: list[Timing] = []
        self.at_s = 0.0  # seconds since the run began

    @property
    def cohort(self) -> int:
        """Sites that the engine is to draw for a round: as many as are asked, or all where some may be away."""
        rounds, away = self._work.plan.rounds, self._fleet.spec.availability.kind != "always"
        if not self._binding or rounds.goal is None:
            return self._wanted
        return self._sites if away else min(math.ceil(rounds.goal * rounds.over_select), self._sites)

    @property
    def timings(self) -> tuple[Timing, ...]:
        """Of the rounds so far."""
        return tuple(self._timings)

    def present(self, number: int, drawn: Ints) -> Ints:
        """Of the sites drawn for a round those whose update is in the model."""
        while len(self._timings) < number - 1:
            before = len(self._timings) + 1
            self._go(before, randomness.cohort(self._work.plan.seed, before, self._sites, self.cohort))
        return self._go(number, np.asarray(drawn, np.int64))

    def _go(self, number: int, drawn: Ints) -> Ints:
        found = self._fleet.round(number, drawn, self._work, at_s=self.at_s)
        self._timings.append(found)
        self.at_s += found.seconds
        return found.present if self._binding else drawn

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
