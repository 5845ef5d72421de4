"""The Gaussian mechanism, snapped to a grid so that the last bits of a float do not tell what was hidden.

Value and noise are each rounded to multiples of a power of two ≤ σ·2^-20 and added exactly. What leaves is then a
post-processing of "grid value + real Gaussian": low-order bits depend on nothing but the grid. Rounding may move two
neighbours' values apart by one grid step per coordinate, grid·√d in L2 norm, which is added to the sensitivity before
the noise is scaled.

What is left: a draw is one of 2^106 points rather than a real number, with a tail that ends at 8.57 σ (`sampling`). Its
distance to the real distribution is below 1e-15 per coordinate and is not part of the printed δ.

Source: Mironov 2012, "On Significance of the Least Significant Bits for Differential Privacy".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedsite.privacy.clipping import clip_rows
from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.sampling import Source

GRID_BITS = 20  # the grid is at least this many bits finer than σ
SUM_SLACK = 2.0**-12  # relative L2 error granted to a float64 sum of clipped records
SUM_RECORDS = 2**20  # records for which that grant holds


def grid_step(sigma: float) -> float:
    """The largest power of two that is ≤ σ·2^-20."""
    return math.ldexp(1.0, math.frexp(sigma)[1] - 1 - GRID_BITS)


def standard_deviation(sensitivity: float, noise_multiplier: float, dimensions: int) -> float:
    """σ of the noise: the multiplier times the sensitivity after rounding.

    Raises:
        PrivacyError: the sensitivity or the multiplier is not positive and finite.
    """
    sigma = sensitivity * noise_multiplier
    if not (math.isfinite(sigma) and sensitivity > 0.0 and noise_multiplier > 0.0):
        raise PrivacyError(
            f"sensitivity {sensitivity} with noise multiplier {noise_multiplier}", allowed="both above 0 and finite"
        )
    return noise_multiplier * (sensitivity + grid_step(sigma) * math.sqrt(dimensions))


def gaussian(
    value: NDArray[np.floating], sensitivity: float, noise_multiplier: float, source: Source
) -> NDArray[np.float64]:
    """`value` plus Gaussian noise of σ = noise_multiplier × sensitivity, on the grid.

    Args:
        value: any shape; one record moves it by at most `sensitivity` in L2 norm over all coordinates together.
        sensitivity: that bound, public.
        noise_multiplier: σ / sensitivity, as the accountant takes it.
        source: the site's randomness.

    Raises:
        PrivacyError: a value is not finite or too large for the grid to be exact, or the parameters are not positive.
    """
    flat = np.asarray(value, dtype=np.float64).ravel()
    sigma = standard_deviation(sensitivity, noise_multiplier, flat.size)
    step = grid_step(sensitivity * noise_multiplier)
    # Integers below 2^52 leave the sum with the noise (below 2^25 steps) exact in a float64.
    limit = math.ldexp(step, 51)
    if not np.all(np.abs(flat) <= limit):
        raise PrivacyError(f"a value outside ±{limit:g} or not finite", allowed=f"finite values within ±{limit:g}")
    noise = np.rint(source.normal(flat.size) * (sigma / step))
    return ((np.rint(flat / step) + noise) * step).reshape(np.shape(value))


def noised_sum(
    contributions: NDArray[np.floating], bound: float, noise_multiplier: float, source: Source
) -> NDArray[np.float64]:
    """Sum over records, each clipped to L2 norm `bound`, plus noise: one Gaussian mechanism under add/remove adjacency.

    Args:
        contributions: [records, coordinate]; may hold no record at all.
        bound: clipping norm.
        noise_multiplier: σ / bound.
        source: the site's randomness.
    """
    total = clip_rows(np.asarray(contributions, dtype=np.float64), bound).sum(axis=0)
    return gaussian(total, summed(bound, len(contributions)), noise_multiplier, source)


def summed(bound: float, records: int) -> float:
    """Sensitivity of a float64 sum of records clipped to `bound`, rounding of the sum included.

    A float64 sum of n terms is off by at most n·2^-53 of the sum of their norms: n²·bound·2^-53, twice for two
    neighbours, which stays below bound·2^-12 up to n = 2^20.

    Raises:
        PrivacyError: more records than that.
    """
    if records > SUM_RECORDS:
        raise PrivacyError(
            f"a sum over {records} records", allowed=f"at most {SUM_RECORDS}", next_step="lower the sampling rate"
        )
    return bound * (1.0 + SUM_SLACK)
