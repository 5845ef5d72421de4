"""Integer noise for sums modulo 2^32: Skellam and discrete Gaussian draws from exact tables.

A table holds P[|X| ≤ m] for every magnitude m, rounded to 2^-127, from integer arithmetic of 256 bits; a draw is a
sign and a place in the table. Its first 63 bits settle the place but once in 10^13 draws, when 64 more are drawn.
NumPy's Poisson generator would be neither exact nor secret. What a table leaves out (rounding, and the tail beyond
12 σ) is its `distance`, a total variation. The accountant counts `DISTANCE` for every draw in a released sum, refuses
sums where that comes to more than 2^-66, and charges 2^-66 a sum to δ (privacy.distributed.RELEASE_DISTANCE).

Source: Agarwal, Kairouz and Liu 2021, "The Skellam Mechanism"; Canonne, Kamath and Steinke 2020, "The Discrete
Gaussian"; Miller's backward recurrence for Bessel functions, DLMF 3.6(iii) and 10.29.1.
"""

from __future__ import annotations

import decimal
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.sampling import Source

Mechanism = Literal["skellam", "discrete-gaussian"]

SIGMAS: Final = 12  # the table's end, in standard deviations: 1e-32 of the mass lies beyond
SIGMA_MAX: Final = 2.0**16  # a larger table would not pay: noise of that many grid steps is as good as continuous
SIGMA_MIN: Final = 0.5
DISTANCE: Final = 2.0**-99  # total variation, as counted for one draw: more than any table is off by
_BITS = 256
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Draws of one distribution over the integers, symmetric about 0."""

    variance: float
    high: NDArray[np.uint64]  # ⌊2^127 · P[|X| ≤ m]⌋ for m = 0, 1, …: all but the last 64 bits
    low: NDArray[np.uint64]  # the last 64 bits
    distance: float  # total variation from the distribution it stands for, per draw; below `DISTANCE`

    def draw(self, count: int, source: Source) -> NDArray[np.int64]:
        """`count` independent draws."""
        found = np.empty(count, np.int64)
        for start in range(0, count, _CHUNK):
            bits = source.bits(min(_CHUNK, count - start))
            place = bits >> np.uint64(1)
            magnitude = np.searchsorted(self.high, place)
            for index in np.flatnonzero(self.high[magnitude] == place):
                fine = source.bits(1)[0]
                while self.high[magnitude[index]] == place[index] and self.low[magnitude[index]] <= fine:
                    magnitude[index] += 1
            found[start : start + _CHUNK] = np.where(bits & np.uint64(1), -magnitude, magnitude)
        return found


@lru_cache(maxsize=8)
def table(mechanism: Mechanism, variance: float) -> Table:
    """The table of a distribution with this variance parameter, in grid steps squared.

    Raises:
        PrivacyError: σ outside 0.5 to 65,536 steps.
    """
    sigma = math.sqrt(variance) if variance > 0.0 else 0.0
    if not SIGMA_MIN <= sigma <= SIGMA_MAX:
        raise PrivacyError(
            f"integer noise of {sigma:g} steps", allowed=f"{SIGMA_MIN:g} to {SIGMA_MAX:g} steps",
            next_step="another privacy.site.noise_multiplier, or another protection.sites",
        )  # fmt: skip
    last = math.ceil(SIGMAS * sigma) + 60
    masses = _skellam(Fraction(variance), last) if mechanism == "skellam" else _gaussian(variance, last)
    total = masses[0] + 2 * sum(masses[1:])
    sums = accumulate([masses[0], *(2 * mass for mass in masses[1:])])
    places = [(mass << 127) // total for mass in sums]
    high = np.array([place >> 64 for place in places], np.uint64)
    low = np.array([place & (2**64 - 1) for place in places], np.uint64)
    return Table(variance, high, low, distance=(last + 1) * 2.0**-127 + 2.0**-100)


def _skellam(variance: Fraction, last: int) -> list[int]:
    """I_k(μ) up to a factor, k = 0 to `last`: upwards it would lose everything, downwards it is exact."""
    start = last + 2 * math.isqrt(last) + 60
    upper, lower = 0, 1 << _BITS
    found = [0] * (last + 1)
    for order in range(start, 0, -1):
        upper, lower = lower, upper + 2 * order * variance.denominator * lower // variance.numerator
        if order - 1 <= last:
            found[order - 1] = lower
    return found


def _gaussian(variance: float, last: int) -> list[int]:
    """exp(−k² / 2σ²) · 2^256: each from the one before, times exp(−(2k + 1) / 2σ²)."""
    with decimal.localcontext() as context:
        context.prec = 100
        factor = (-1 / (2 * decimal.Decimal(variance))).exp()
        step = int(factor * (1 << _BITS))
    square = step * step >> _BITS
    found, ratio = [1 << _BITS], step
    for _ in range(last):
        found.append(found[-1] * ratio >> _BITS)
        ratio = ratio * square >> _BITS
    return found
