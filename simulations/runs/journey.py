"""A run on its fleet: which sites each round asks, whose updates arrive, and what all of it takes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np

from fedsite.protocol import documents, storage
from fedsite.protocol.errors import FedsiteError
from fedsite.server.plans.planning import Planned
from fedsite.simulations.fleet import probe, work
from fedsite.simulations.fleet.course import Course
from fedsite.simulations.fleet.model import Fleet, Timing
from fedsite.simulations.fleet.spending import Spent, spent
from fedsite.simulations.runs import planned, results
from fedsite.simulations.runs.material import Material
from fedsite.simulations.runs.settings import SimulateSettings
from fedsite.simulations.vectorised import randomness
from fedsite.simulations.vectorised.job import Epochs
from fedsite.simulations.vectorised.schedule import Ints

ALONE: Final = "fedsite.probe/1"


class Journey:
    """Wraps the fleet's course, so that a run that goes on has the same clock as one in one go.

    Who is there is asked of all sites and the fleet chooses the cohort, as production does; where everybody is always
    there, the engine's own cohort is the one that is asked.
    """

    def __init__(self, course: Course, plan: Planned, sites: int, *, drawn: int, windows_s: float) -> None:
        """`drawn` is how many sites the engine draws for a round, `windows_s` the median site's speed."""
        self._course, self._plan, self._sites = course, plan, sites
        self._windows_s, self.drawn = windows_s, drawn

    @classmethod
    def begin(
        cls, settings: SimulateSettings, plan: Planned, given: Material, epochs: Epochs | None, folder: Path | None
    ) -> Journey:
        """Of a plan; tries for a moment how fast this machine trains it, where no speed was given.

        Raises:
            ConfigError: the calibration is no report of a demo.
            DataError: the trace cannot be read.
        """
        spec, sites = settings.simulation.fleet, len(given.population)
        bounds, cohort = plan.plan.rounds, planned.cohort(plan, len(given.population))
        alone = None if spec.speed.windows_s is not None else _tried(plan, given, folder)
        fleet = Fleet.of(spec, settings.seed, alone_s=alone)
        asked = min(sites, math.ceil(cohort * bounds.over_select)) if bounds.goal is not None else sites
        course = Course(fleet, work.work(plan.plan, given.population, cohort=asked, epochs=epochs))
        own = fleet.measured.windows_s if alone is None else fleet.measured.efficiency * alone
        return cls(
            course,
            plan,
            sites,
            drawn=asked if spec.availability.kind == "always" else sites,
            windows_s=own if spec.speed.windows_s is None else spec.speed.windows_s,
        )

    def present(self, number: int, drawn: Ints) -> Ints:
        """Whose updates arrive; called once for each round, in order."""
        return self._course.present(number, drawn)

    def replay(self, rounds: int) -> None:
        """Go through rounds that an earlier run computed."""
        for number in range(1, rounds + 1):
            self._course.present(number, randomness.cohort(self._plan.plan.seed, number, self._sites, self.drawn))

    @property
    def timings(self) -> tuple[Timing, ...]:
        """Of all rounds."""
        return self._course.timings

    @property
    def minutes(self) -> float:
        """From the launch to the release, as foreseen."""
        return self._course.outlook.minutes

    @property
    def bytes_up(self) -> float:
        """Of a site that was asked, in one round, mean."""
        return self._course.outlook.bytes_up_per_site_round

    @property
    def bytes_down(self) -> float:
        """Of a site that was asked, in one round, mean."""
        return self._course.outlook.bytes_down_per_site_round

    @property
    def participations(self) -> Ints:
        """Rounds in which each site was asked, [site]."""
        return self._course.participations(self._sites)

    def spent(self) -> tuple[Spent, ...]:
        """What each claim cost the sites, by the rounds they were asked in."""
        return spent(self._plan.plan, self.participations)

    @property
    def outlook(self) -> results.Fleet:
        """For the result."""
        found = self._course.outlook
        return results.Fleet(
            calibration=found.calibration,
            windows_s=self._windows_s,
            seconds_per_round=found.seconds_per_round,
            asked=found.asked,
            present=found.present,
            outcomes=dict(found.outcomes),
            ended_early=found.ended_early,
            bytes_up=found.bytes_up,
            bytes_down=found.bytes_down,
        )


def _tried(plan: Planned, given: Material, folder: Path | None) -> float:
    """Windows that this machine trains in a second; what an interrupted run found is found again."""
    path = None if folder is None else folder / "probe.json"
    if path is not None and path.exists():
        try:
            return float(documents.document(storage.read(path), ALONE)["windows_s"])
        except (FedsiteError, KeyError, TypeError, ValueError):
            pass  # damaged: tried again
    found = probe.windows_s(plan.plan, int(np.median(given.population.counts)))
    if path is not None:
        with storage.storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_atomic(path, documents.canonical({"schema": ALONE, "windows_s": found}), mode=0o644)
    return found
