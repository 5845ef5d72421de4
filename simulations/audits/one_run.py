"""ε from one training with many canaries: how often may somebody guess right that a canary is there?

Every canary is in the data or not, by an independent coin. Whoever guesses r of m coins is right about v of them. For
an (ε, δ)-private mechanism v is bounded by a binomial law with chance e^ε / (1 + e^ε), but for what δ adds:

    P[v or more right] ≤ P[B ≥ v] + 2 m δ · max over i of P[v > B ≥ v − i] / i,    B ~ Binomial(r, e^ε / (1 + e^ε)).

It holds whatever canaries do to each other, so trainings on separate data may be put together as one.

Source: Steinke, Nasr and Jagielski 2023 (arXiv:2305.08846), corollary 5.4.
"""

from __future__ import annotations

import math

import numpy as np

MOST = 64.0  # ε beyond which nobody has that many canaries
_BISECTIONS = 40


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """The chance of `right` or more under (ε, δ), at most."""
    from scipy import stats  # type: ignore[import-untyped]

    chance = 1.0 / (1.0 + math.exp(-epsilon))
    found = float(stats.binom.sf(right - 1, guesses, chance))
    if delta > 0.0 and right > 0:
        below = np.cumsum(stats.binom.pmf(np.arange(right - 1, -1, -1), guesses, chance))
        found += 2.0 * canaries * delta * float((below / np.arange(1, right + 1)).max())
    return min(found, 1.0)


def lower_bound(canaries: int, guesses: int, right: int, delta: float, risk: float) -> float:
    """The largest ε that is disproved, with a chance of error of at most `risk`; 0 where nothing is."""
    low, high = 0.0, MOST
    if p_value(canaries, guesses, right, low, delta) > risk:
        return 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if p_value(canaries, guesses, right, middle, delta) <= risk else (low, middle)
    return low
