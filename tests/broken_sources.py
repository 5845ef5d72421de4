"""Sources of randomness that break a mechanism in one way each, for audits that must notice."""

from __future__ import annotations

import numpy as np

from fedsite.privacy import sampling
from fedsite.privacy.sampling import SeededSource


class Scaled:
    """A source whose normal draws are multiplied: 0 shows the clipped sum alone, 0.5 is half the noise."""

    seeded = False

    def __init__(self, factor: float, inner: sampling.Source) -> None:
        self.factor, self.inner = factor, inner

    def bits(self, n: int) -> np.ndarray:
        return self.inner.bits(n)

    def uniform(self, n: int) -> np.ndarray:
        return self.inner.uniform(n)

    def normal(self, n: int) -> np.ndarray:
        return self.factor * self.inner.normal(n)


class Reused:
    """A source that starts from the same seed again for every draw of noise."""

    seeded = True

    def bits(self, n: int) -> np.ndarray:
        return SeededSource(11).bits(n)

    def uniform(self, n: int) -> np.ndarray:
        return SeededSource(11).uniform(n)

    def normal(self, n: int) -> np.ndarray:
        return SeededSource(11).normal(n)


class KeptBatch:
    """A source that draws a training's first batch again for each of its steps; its noise is fresh."""

    seeded = True

    def __init__(self, seed: int) -> None:
        self.seed, self.inner = seed, SeededSource((seed, 1))

    def bits(self, n: int) -> np.ndarray:
        return SeededSource((self.seed, 2)).bits(n)

    def uniform(self, n: int) -> np.ndarray:
        return self.inner.uniform(n)

    def normal(self, n: int) -> np.ndarray:
        return self.inner.normal(n)
