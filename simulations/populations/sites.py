"""Simulated sites as a mapping that makes a site's data when asked, and as one population without asking.

Windows are used as they lie in the pooled arrays: a site is a range of an index array.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fedsite.simulations.populations.classes import Classes
from fedsite.simulations.populations.places import Ints, Places
from fedsite.simulations.populations.sensors import Sensors
from fedsite.simulations.populations.spec import DriftSpec
from fedsite.simulations.runs.draws import Draw, uniforms
from fedsite.simulations.vectorised.population import Population
from fedsite.telemetry.dataset import SiteData, Windows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sites(Mapping[str, SiteData]):
    """The data of every site in one phase of the drift; `at` gives those of another."""

    pooled: SiteData
    train: Places
    holdout: Places
    first: tuple[Places, Places]  # training and holdout windows before anything drifted
    numbers: Mapping[str, int]  # name -> site, in order
    classes: Classes
    sensors: Sensors
    drift: DriftSpec
    seed: int
    deals: int  # how often the pool was dealt, each time to other sites
    unit: str  # window or entity: what stays at one site
    phase: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __getitem__(self, name: str) -> SiteData:
        site = self.numbers[name]
        train, holdout = self.train.at(site), self.holdout.at(site)
        return dataclasses.replace(
            self.pooled,
            train=self._read(self.pooled.train, train, np.full(len(train), site)),
            holdout=self._read(self.pooled.holdout, holdout, np.full(len(holdout), site)),
        )

    def phase_of(self, round_number: int) -> int:
        """The phase of the drift that a round (from 1) is in."""
        return min((round_number - 1) // self.drift.every, self.drift.phases - 1) if self.drift.any else 0

    def at(self, round_number: int) -> Sites:
        """The sites as they are in a round."""
        phase = self.phase_of(round_number)
        if phase == self.phase:
            return self
        train, holdout = self._left(phase, holdout=False), self._left(phase, holdout=True)
        return dataclasses.replace(self, phase=phase, train=train, holdout=holdout)

    def phases(self, rounds: int) -> tuple[tuple[int, int], ...]:
        """First and last round of every phase of a run of so many rounds."""
        if not self.drift.any:
            return ((1, rounds),)
        first = [p * self.drift.every + 1 for p in range(self.drift.phases) if p * self.drift.every < rounds]
        return tuple(zip(first, [*(number - 1 for number in first[1:]), rounds], strict=True))

    def joined(self) -> SiteData:
        """Everybody's data in order of sites, as if it were one site's; each site's as its own sensors read it.

        Sums over it (statistics, a metric) are the sums over the sites.
        """
        train = self._read(self.pooled.train, self.train.rows, self.train.site)
        holdout = self._read(self.pooled.holdout, self.holdout.rows, self.holdout.site)
        return dataclasses.replace(self.pooled, train=train, holdout=holdout)

    def population(self, scaled: Callable[[Windows], Windows] = lambda windows: windows) -> Population:
        """Every site's training windows, for the vectorised engine.

        Args:
            scaled: windows as the model takes them.
        """
        found = scaled(self._read(self.pooled.train, self.train.rows, self.train.site))
        return Population(
            x=np.ascontiguousarray(found.x, np.float32),
            y=found.y if found.y.dtype.kind == "i" else found.y.astype(np.float32),
            offsets=self.train.offsets,
            entity=found.entity,
        )

    def kept_labels(self) -> Ints:
        """The label of each site that does not become rarer, [site]: that of one of its training windows, at random."""
        places = self.first[0]
        part = uniforms(self.seed, Draw.PRIOR, 2, np.arange(len(self)), count=1)[:, 0] * places.counts
        found: Ints = self.classes.train[places.rows[places.offsets[:-1] + part.astype(np.int64)]]
        return found

    def _left(self, phase: int, *, holdout: bool) -> Places:
        """Windows that the drift of labels has left by this phase: of all labels but one some are gone."""
        places = self.first[holdout]
        if not (self.drift.prior > 0 and phase):
            return places
        classes = self.classes.holdout if holdout else self.classes.train
        kept = classes[places.rows] == self.kept_labels()[places.site]
        place = np.arange(len(places.rows)) - np.repeat(places.offsets[:-1], places.counts)
        draws = uniforms(self.seed, Draw.PRIOR, int(holdout), places.site, place, count=1)[:, 0]
        return places.kept(kept | (draws >= self.drift.prior * phase / (self.drift.phases - 1)))

    def _read(self, windows: Windows, rows: Ints, site: Ints) -> Windows:
        found = windows.take(rows)
        return dataclasses.replace(found, x=self.sensors.moved(found.x, site, self.phase))
