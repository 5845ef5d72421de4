"""Rényi divergence of a group of records under one Poisson-subsampled Gaussian step.

Each of the group joins the step on its own, so the sum moves by at most as many clipping norms as a Binomial(group, q)
draw says. All directions are dominated by the scalar mixture Σ_j Binomial(j) N(j, σ²) against N(0, σ²).

Source: dominance of mixtures of Gaussians, Choquette-Choo et al. 2024 (arXiv:2310.15526), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ORDERS = (1.05, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)

_POINTS_PER_SIGMA = 16  # the trapezoid rule on Gaussians converges faster than any power: 16 leaves nothing to see
_TAIL = 12.0  # σ beyond the outermost peak of an integrand


def divergence(
    noise_multiplier: float, sampling_rate: float, group: int, orders: Sequence[float] = ORDERS
) -> NDArray[np.float64]:
    """Rényi divergence of one step at each order, in nats: the larger of both directions (added, or removed)."""
    return np.array([_divergence(noise_multiplier, sampling_rate, group, order) for order in orders])


def _divergence(sigma: float, q: float, group: int, order: float) -> float:
    if q >= 1.0:
        return order * group**2 / (2.0 * sigma**2)
    reach = order * group + _TAIL * sigma
    x = np.linspace(-reach, reach, 2 * math.ceil(reach / sigma * _POINTS_PER_SIGMA) + 1)
    none = -(x**2) / (2 * sigma**2)
    some = np.full_like(x, -np.inf)
    for j in range(group + 1):
        weight = math.lgamma(group + 1) - math.lgamma(j + 1) - math.lgamma(group - j + 1)
        weight += j * math.log(q) + (group - j) * math.log1p(-q)
        some = np.logaddexp(some, weight - (x - j) ** 2 / (2 * sigma**2))
    scale = math.log(x[1] - x[0]) - math.log(sigma * math.sqrt(2 * math.pi))
    forward = _log_sum(order * some + (1 - order) * none) + scale
    backward = _log_sum(order * none + (1 - order) * some) + scale
    return max(0.0, forward, backward) / (order - 1)


def _log_sum(values: NDArray[np.float64]) -> float:
    peak = float(values.max())
    return peak + math.log(float(np.exp(values - peak).sum()))
