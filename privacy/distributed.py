"""Noise that sites add in parts and the server sees only in the sum: sensitivity after rounding, and ε by Rényi bounds.

The unit is a site: two neighbouring inputs differ in one site's whole vector, clipped to C in L2 norm. Each of at least
`honest` sites adds variance μ / honest, so that any released sum holds at least μ.

Source: Agarwal, Kairouz and Liu 2021, "The Skellam Mechanism for Differentially Private Federated Learning", theorem
3.5 and corollary 5.1; Kairouz, Liu and Steinke 2021, "The Distributed Discrete Gaussian Mechanism", proposition 26
(conditional rounding) and theorem 13 (the sum of discrete Gaussians).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsite.privacy.accounting import Spend, merged
from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.integer_noise import DISTANCE, Mechanism
from fedsite.privacy.sampling import Source

BETA: Final = math.exp(-0.5)  # a rounding this unlucky, or worse, is drawn again
ORDERS: Final = (*range(2, 129), 256)
ROUNDINGS: Final = 1000
RELEASE_DISTANCE: Final = 2.0**-66  # total variation that a release is charged for at most
NOISE_MAX: Final = 1e6


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SumRelease:
    """One released sum: what one site's vector can move it by, and the noise that hides it."""

    mechanism: Mechanism
    norm: float  # L2 sensitivity of the rounded vectors, grid steps: `rounded_norm`
    variance: float  # of one site's noise, grid steps squared
    honest: int = 1  # sites whose noise nobody can subtract: the sum holds this many times `variance`
    dimensions: int  # coordinates

    @property
    def distance(self) -> float:
        """Total variation from a sum whose noise is exact, at most."""
        return DISTANCE * self.dimensions * self.honest

    def divergence(self, order: int) -> float:
        """Rényi divergence of this integer order (2 or more), in nats."""
        absolute = min(math.sqrt(self.dimensions) * self.norm, self.norm**2)
        whole = self.variance * self.honest
        if self.mechanism == "skellam":
            return skellam_divergence(order, whole, self.norm, absolute)
        gap = _sum_gap(self.variance, self.honest)
        return discrete_gaussian_divergence(order, whole, self.norm, self.dimensions, gap)


def sums_epsilon(releases: Iterable[tuple[SumRelease, int]], delta: float) -> float:
    """ε at `delta` of all these sums together, each released as often as said; 0 for none.

    Raises:
        PrivacyError: δ does not cover what the noise tables are off by.
    """
    parts = [(release, count) for release, count in releases if count]
    if not parts:
        return 0.0
    total = {order: math.fsum(count * one.divergence(order) for one, count in parts) for order in ORDERS}
    return _charged(total, delta, math.fsum(count * one.distance for one, count in parts))


def equivalent_multiplier(release: SumRelease) -> float:
    """The noise multiplier z of a Gaussian mechanism that costs at least as much as this sum.

    Proof. A Gaussian mechanism of noise multiplier z has Rényi divergence a / (2 z²) at every order a. With
    z = min over `ORDERS` of √(a / (2 D(a))), D being the divergence of the sum, D(a) ≤ a / (2 z²) holds at each of
    these orders. Divergences of composed mechanisms add up order by order, so any composition of sums has at each of
    these orders at most the divergence of the composed Gaussians, and the bound on ε that is the least over the same
    orders is at most theirs. It holds at these orders only: `equivalent_epsilon` uses no other, and no PRV. What
    the noise is off by, at most `RELEASE_DISTANCE` a release, `equivalent_epsilon` takes from δ.

    Raises:
        PrivacyError: so many coordinates and sites that the tables' distance is above `RELEASE_DISTANCE`.
    """
    if release.distance > RELEASE_DISTANCE:
        raise PrivacyError(
            f"a noised sum of {release.dimensions} values over {release.honest} sites",
            allowed=f"{RELEASE_DISTANCE / DISTANCE:.3g} of both multiplied",
        )
    least = min(math.sqrt(order / (2.0 * release.divergence(order))) for order in ORDERS)
    return least * (1.0 - 1e-12)  # the arithmetic of this line rounds


def equivalent_epsilon(spends: Iterable[Spend], delta: float) -> float:
    """ε at `delta` of everything a site has in sums, each as `equivalent_multiplier` says; 0 for nothing.

    Raises:
        PrivacyError: a spend on a sample (a server knows the cohort, sampling hides nothing), or δ is too small.
    """
    parts = merged(spends)
    if any(spend.sampling_rate != 1.0 for spend in parts):
        raise PrivacyError("a sum on a random sample of sites", allowed="sums over whole cohorts")
    if not parts:
        return 0.0
    weight = math.fsum(spend.steps / (2.0 * spend.noise_multiplier**2) for spend in parts)
    steps = sum(spend.steps for spend in parts)
    return _charged({order: order * weight for order in ORDERS}, delta, steps * RELEASE_DISTANCE)


def solve_sum_multiplier(
    target_epsilon: float,
    delta: float,
    multiplier_of: Callable[[float], float],
    rounds: int,
    other_spends: tuple[Spend, ...] = (),
) -> float:
    """The smallest noise in the sum, over the clipping norm, with which a run stays within `target_epsilon`.

    Args:
        target_epsilon: of the whole run.
        delta: of the claim.
        multiplier_of: the equivalent multiplier that noise of this size amounts to, after clipping and rounding.
        rounds: sums of training.
        other_spends: everything else the run releases.

    Returns:
        Rounded up to 4 digits.

    Raises:
        PrivacyError: the other spends alone exceed the target, or no noise reaches it.
    """

    def total(noise: float) -> float:
        found = Spend(noise_multiplier=multiplier_of(noise), steps=rounds)
        try:
            return equivalent_epsilon((found, *other_spends), delta)
        except PrivacyError:
            return math.inf  # far above any target

    others = equivalent_epsilon(other_spends, delta)
    if others >= target_epsilon:
        raise PrivacyError(
            f"statistics, evaluation and calibration alone cost epsilon {others:.3f} per site",
            allowed=f"below the target {target_epsilon}",
            next_step="raise privacy.site.epsilon or the noise of these releases, or set it to 0 to leave them out",
        )
    high, least = 0.01, math.inf
    while (found := total(high)) > target_epsilon:
        least = min(least, found)
        high *= 2.0
        if high > NOISE_MAX:
            raise PrivacyError(
                f"no noise reaches epsilon {target_epsilon:g} per site: rounding to the grid leaves {least:.3g}",
                next_step="raise privacy.site.epsilon, train fewer parameters (model.trainable) or fewer rounds",
            )
    low = high / 2.0
    while high > low * (1.0 + 1e-4):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if total(middle) <= target_epsilon else (middle, high)
    digits = 10.0 ** (3 - math.floor(math.log10(high)))
    return math.ceil(high * digits) / digits


def skellam_divergence(order: int, variance: float, norm: float, absolute: float) -> float:
    """RDP of a Skellam sum: a·Δ2²/(2μ) + min(((2a−1)Δ2² + 6Δ1)/(4μ²), 3Δ1/(2μ))."""
    square = norm * norm
    extra = min(((2 * order - 1) * square + 6 * absolute) / (4 * variance**2), 3 * absolute / (2 * variance))
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


def _charged(total: Mapping[int, float], delta: float, distance: float) -> float:
    """ε of divergences by order, with what the noise is off by taken from δ."""
    epsilon = 0.0
    for _ in range(20):  # the charge grows with e^ε: raise ε until what it leaves of δ gives it back
        left = delta - (1.0 + math.exp(min(epsilon, 500.0))) * distance
        if left <= 0.0:
            break
        found = from_divergences(total, left)
        if distance == 0.0 or found <= epsilon * (1.0 + 1e-12):
            return max(epsilon, found)
        epsilon = found * (1.0 + 1e-9)
    raise PrivacyError(
        f"an epsilon above {epsilon:.3g} at delta {delta:g}: what the noise tables are off by grows with e^epsilon",
        allowed="a claim that integer noise can carry",
        next_step="more noise, fewer rounds, or a larger delta",
    )


def from_divergences(total: Mapping[int, float], delta: float) -> float:
    """ε at `delta` of Rényi divergences by order: Canonne, Kamath and Steinke 2020, proposition 12."""
    bounds = (
        value + math.log1p(-1.0 / order) - math.log(delta * order) / (order - 1) for order, value in total.items()
    )
    return max(0.0, min(bounds))
