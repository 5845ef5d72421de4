"""Noise that sites add in parts and the server sees only in the sum: sensitivity after rounding, and ε by Rényi bounds.

The unit is a site: two neighbouring inputs differ in one site's whole vector, clipped to C in L2 norm. Each of at least
`honest` sites adds variance μ / honest, so that any released sum holds at least μ.

Source: Agarwal, Kairouz and Liu 2021, "The Skellam Mechanism for Differentially Private Federated Learning", theorem
3.5 and corollary 5.1; Kairouz, Liu and Steinke 2021, "The Distributed Discrete Gaussian Mechanism", proposition 26
(conditional rounding) and theorem 13 (the sum of discrete Gaussians).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.integer_noise import Mechanism
from fedsite.privacy.sampling import Source

BETA: Final = math.exp(-0.5)  # a rounding this unlucky, or worse, is drawn again
ORDERS: Final = (*range(2, 129), 256)
ROUNDINGS: Final = 1000


def rounded_norm(clip: float, scale: float, dimensions: int) -> float:
    """The largest L2 norm of a vector clipped to `clip`, scaled, and rounded conditionally; in grid steps."""
    length, root = scale * clip, math.sqrt(dimensions)
    inner = length + root
    likely = length**2 + dimensions / 4 + math.sqrt(2.0 * math.log(1.0 / BETA)) * inner
    return min(inner, math.sqrt(likely))


def round_conditionally(values: NDArray[np.float64], norm: float, source: Source) -> NDArray[np.int64]:
    """Stochastic rounding, drawn again until the result's L2 norm is at most `norm` (an expected 2.5 draws at most).

    Args:
        values: [coordinate], scaled.
        norm: `rounded_norm` of what they were clipped to.
        source: the site's randomness.

    Raises:
        PrivacyError: no draw fits: the values were not clipped to what `norm` was made for.
    """
    floor = np.floor(values)
    chance = values - floor
    for _ in range(ROUNDINGS):
        found = floor + (source.uniform(values.size) <= chance)
        if float(found @ found) <= norm * norm:
            return found.astype(np.int64)
    raise PrivacyError(f"values longer than {norm:g} steps after rounding", allowed="values clipped before")


def sum_epsilon(
    mechanism: Mechanism,
    *,
    variance: float,
    norm: float,
    dimensions: int,
    rounds: int,
    delta: float,
    parts: int = 1,
    distance: float = 0.0,
) -> float:
    """ε at `delta` of `rounds` released sums.

    Args:
        mechanism: whose noise.
        variance: μ of the noise in each sum, in grid steps squared.
        norm: L2 sensitivity of the rounded vectors, `rounded_norm`.
        dimensions: coordinates.
        rounds: sums released.
        delta: of the claim.
        parts: sites that the noise is shared among (discrete Gaussians do not add up exactly).
        distance: total variation of one draw from its distribution (`Table.distance`), charged to δ.

    Raises:
        PrivacyError: δ does not cover the tables' distance.
    """
    absolute = min(math.sqrt(dimensions) * norm, norm * norm)
    gap = _sum_gap(variance / parts, parts) if mechanism == "discrete-gaussian" else 0.0

    def divergence(order: int) -> float:
        if mechanism == "skellam":
            return skellam_divergence(order, variance, norm, absolute)
        return discrete_gaussian_divergence(order, variance, norm, dimensions, gap)

    charged = distance * dimensions * rounds * parts
    epsilon = 0.0
    for _ in range(20):  # the charge grows with e^ε: raise ε until what it leaves of δ gives it back
        left = delta - (1.0 + math.exp(min(epsilon, 500.0))) * charged
        if left <= 0.0:
            raise PrivacyError(
                f"delta {delta:g} is below what the noise tables are off by", next_step="raise privacy.delta"
            )
        found = _epsilon(divergence, rounds, left)
        if found <= epsilon * (1.0 + 1e-12):
            return epsilon
        epsilon = found if charged == 0.0 else found * (1.0 + 1e-9)
        if charged == 0.0:
            return epsilon
    return epsilon


def skellam_divergence(order: int, variance: float, norm: float, absolute: float) -> float:
    """RDP of a Skellam sum: a·Δ2²/(2μ) + min(((2a−1)Δ2² + 6Δ1)/(4μ²), 3Δ1/(2μ))."""
    square = norm * norm
    extra = min(
        ((2 * order - 1) * square + 6 * absolute) / (4 * variance**2), 3 * absolute / (2 * variance)
    )
    return order * square / (2 * variance) + extra


def discrete_gaussian_divergence(order: int, variance: float, norm: float, dimensions: int, gap: float) -> float:
    """RDP of a sum of discrete Gaussians: that of one with the whole variance, and the gap between the two."""
    square = norm * norm
    half = order / 2
    return min(
        half * square / variance + gap * dimensions,
        half * (square / variance + 2 * gap * norm / math.sqrt(variance) * math.sqrt(dimensions) + gap**2 * dimensions),
        half * (norm / math.sqrt(variance) + gap * math.sqrt(dimensions)) ** 2,
    )


def _sum_gap(variance: float, parts: int) -> float:
    """τ = 10 Σ_{k=1}^{n−1} exp(−2π²σ²·k/(k+1)), σ² of one part."""
    return 10.0 * sum(math.exp(-2.0 * math.pi**2 * variance * k / (k + 1)) for k in range(1, parts))


def _epsilon(divergence: Callable[[int], float], rounds: int, delta: float) -> float:
    """The best order's ε: Canonne, Kamath and Steinke 2020, proposition 12."""
    best = math.inf
    for order in ORDERS:
        total = rounds * divergence(order)
        found = total + math.log1p(-1.0 / order) - math.log(delta * order) / (order - 1)
        best = min(best, max(found, 0.0))
    return best
