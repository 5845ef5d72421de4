"""Sums of updates in fixed point: integers add up to the same bits in any order, so for any number of workers.

An update is put on a grid of 2^-30, exact for every float32 above 2^-7 and finer than a float64 mean needs below, and
multiplied by its weight, a whole number. The sum is exact while it stays in 63 bits: `Sum.add` keeps account.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import ConfigError

STEPS: Final = 2.0**30  # of the grid in one unit
BOUND: Final = 64.0  # of one coordinate of an update; beyond it a run has diverged
MOST_WEIGHT: Final = 2**26  # 2^30 · 64 · 2^26 = 2^62


@dataclass(slots=True, kw_only=True)
class Sum:
    """Σ weight · update over some sites. `total` [number] int64, in grid steps; [site, number] where each is apart."""

    total: NDArray[np.int64]
    weight: int = 0
    sites: int = 0

    @classmethod
    def empty(cls, size: int, apart: int | None = None) -> Sum:
        """Of no sites; `apart`: with a row for each of so many."""
        return cls(total=np.zeros(size if apart is None else (apart, size), np.int64))

    def counted(self, weights: NDArray[np.int64]) -> None:
        """Take note of sites whose updates go into `total`.

        Raises:
            ConfigError: the weights could overflow the sum.
        """
        self.weight += int(weights.sum())
        self.sites += len(weights)
        if self.weight > MOST_WEIGHT:
            raise ConfigError(
                f"a cohort with {self.weight} windows",
                allowed=f"at most {MOST_WEIGHT} in one round",
                next_step="draw a smaller cohort",
            )

    def add(self, other: Sum) -> None:
        """Add what another worker summed.

        Raises:
            ConfigError: the weights could overflow the sum.
        """
        self.counted(np.array([other.weight], np.int64))
        self.sites += other.sites - 1
        self.total += other.total

    def parts(self, weights: NDArray[np.int64]) -> list[Sum]:
        """The sums that this one is made of: its rows, of sites of these weights [site], or itself."""
        if self.total.ndim == 1:
            return [self]
        return [Sum(total=row, weight=int(own), sites=1) for row, own in zip(self.total, weights, strict=True)]

    def mean(self) -> NDArray[np.float64]:
        """Σ weight · update / Σ weight, [number]."""
        return self.total / (STEPS * max(self.weight, 1))


def diverged(round_number: int, learning_rate: float) -> ConfigError:
    """What is raised when an update has left the grid, or is no number at all."""
    return ConfigError(
        f"training diverged in round {round_number}: an update is not finite, or has left ±{BOUND:g}",
        allowed="a learning rate the model bears",
        next_step=f"a local.learning_rate below {learning_rate:g}",
    )
