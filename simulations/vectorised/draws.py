"""The draws of the vectorised engine in the order that a real site's training asks for them.

A site asks one source for everything: who joins a step's batch, which windows stand for a large entity, and the noise.
The engine has a stream for each. So this source knows, as it is asked, which step it is in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsite.client.work.train_private import ENTITY_WINDOWS
from fedsite.privacy.sampling import Source
from fedsite.simulations.vectorised import randomness
from fedsite.simulations.vectorised.job import Job
from fedsite.simulations.vectorised.randomness import Purpose


class Drawn:
    """One site's source for one round of training (privacy.sampling.Source)."""

    seeded = True

    def __init__(
        self, job: Job, round_number: int, site: int, entity: NDArray[np.int64], before: Source | None = None
    ) -> None:
        """Begin before the first step.

        Args:
            job: what is trained.
            round_number: from 1.
            site: its number in the population.
            entity: of each training window, [window].
            before: source of the noise of an evaluation that comes before the first step, where there is one.
        """
        self._job = job
        self._counters = (round_number, site)
        self._before = before
        by_entity = job.private and job.privacy.unit == "entity"
        self._sizes = np.unique(entity, return_counts=True)[1] if by_entity else np.ones(len(entity), np.int64)
        self._step = -1
        self._large: list[int] = []  # entities of this step's batch that are still to be cut
        if job.local.sampling_rate >= 1.0:
            self._begin(np.arange(len(self._sizes)))

    def bits(self, n: int) -> NDArray[np.uint64]:
        """Uniform 64-bit integers: of a batch, or of the windows of an entity that is cut."""
        if self._large:
            return self._stream(Purpose.SUBSET, self._step, self._large.pop(0), count=n)
        self._step += 1
        found = self._stream(Purpose.BATCH, self._step, count=n)
        self._joined(np.flatnonzero(found < randomness.threshold(self._job.local.sampling_rate)))
        return found

    def uniform(self, n: int) -> NDArray[np.float64]:
        """Nothing in training asks for these.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError

    def normal(self, n: int) -> NDArray[np.float64]:
        """A step's noise, with which it ends."""
        if self._before is not None:
            before, self._before = self._before, None
            return before.normal(n)
        key = randomness.key(self._job.seed, Purpose.NOISE, *self._counters, self._step)
        found = randomness.normal(key, n)[0].astype(np.float64)
        if self._job.local.sampling_rate >= 1.0:
            self._begin(np.arange(len(self._sizes)))
        return found

    def _begin(self, everybody: NDArray[np.int64]) -> None:
        """A step whose batch is not drawn, because everybody joins it."""
        self._step += 1
        self._joined(everybody)

    def _joined(self, units: NDArray[np.int64]) -> None:
        self._large = [int(unit) for unit in units if self._sizes[unit] > ENTITY_WINDOWS]

    def _stream(self, *counters: int, count: int) -> NDArray[np.uint64]:
        purpose, *rest = counters
        key = randomness.key(self._job.seed, Purpose(purpose), self._counters[0], self._counters[1], *rest)
        return randomness.bits(key, count)[0]
