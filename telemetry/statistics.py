"""Normalisation from sums that merge: federated statistics are those of the pooled data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-3  # of half a channel's public range: a constant channel is not blown up


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """x' = (x - mean) / scale, each [feature] float32 in the features' own units."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Sums over windows of readings clipped to their public range and mapped to [-1, 1].

    Shapes: `count` [1], `total` and `square` [feature] float64. One window adds 1 to `count`, its mean over time
    (within [-1, 1]) to `total` and the mean of its squares (within [0, 1]) to `square`: so one window moves the whole
    vector by at most sqrt(1 + 2 features) in the L2 norm.
    """

    count: NDArray[np.float64]
    total: NDArray[np.float64]
    square: NDArray[np.float64]

    def __add__(self, other: Sums) -> Sums:
        return Sums(count=self.count + other.count, total=self.total + other.total, square=self.square + other.square)

    def normalisation(
        self, minimum: NDArray[np.float32], maximum: NDArray[np.float32], *, noise: float = 0.0
    ) -> Normalisation:
        """Mean and standard deviation in the features' units; noise in the sums cannot make them leave the range.

        Args:
            minimum, maximum: [feature], the public bounds.
            noise: standard deviation of the noise on each sum. A variance that noise may have eaten is raised to twice
                what noise does to it: a scale too small by far would blow its channel up.
        """
        middle, half = _frame(minimum, maximum)
        count = max(float(self.count[0]), 1.0)
        mean = np.clip(self.total / count, -1.0, 1.0)
        least = min(max(SMALLEST**2, 2.0 * noise / count), 1.0)
        spread = np.sqrt(np.clip(self.square / count - mean * mean, least, 1.0))
        return Normalisation(mean=(middle + half * mean).astype(np.float32), scale=(half * spread).astype(np.float32))


def window_sums(x: NDArray[np.float32], minimum: NDArray[np.float32], maximum: NDArray[np.float32]) -> Sums:
    """The sums of one site's windows.

    Args:
        x: [windows, time, feature], in the features' own units.
        minimum, maximum: [feature], the public bounds.
    """
    middle, half = _frame(minimum, maximum)
    unit = np.clip((x.astype(np.float64) - middle) / half, -1.0, 1.0)
    return Sums(
        count=np.array([float(len(x))]),
        total=unit.mean(axis=1).sum(axis=0),
        square=(unit * unit).mean(axis=1).sum(axis=0),
    )


def sensitivity(features: int) -> float:
    """L2 bound of one window's part in (count, total, square)."""
    return float(np.sqrt(1 + 2 * features))


def unit_bound(features: int) -> float:
    """What a private site clips one unit's (count, total, square) to in L2 norm, public.

    The largest norm a unit could have is `sensitivity`, with every reading at an end of its range. Readings that use
    half of it have about √(1 + F/4): clipping there costs them nothing and saves more than half of the noise. A unit
    beyond it is scaled down as a whole, count included: it weighs less in the mean but does not bias it towards zero.
    """
    return float(np.sqrt(1 + features / 4))


def schema_normalisation(minimum: NDArray[np.float32], maximum: NDArray[np.float32]) -> Normalisation:
    """Normalisation from public ranges alone: the range's middle, and a quarter of it as scale. No data is read."""
    middle, half = _frame(minimum, maximum)
    return Normalisation(mean=middle.astype(np.float32), scale=(half / 2).astype(np.float32))


def _frame(
    minimum: NDArray[np.float32], maximum: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = minimum.astype(np.float64), maximum.astype(np.float64)
    return (low + high) / 2, np.maximum((high - low) / 2, 1e-12)
