"""From what an attacker scored to what is disproved: lower bounds on ε at several points of the claim's own curve.

A mechanism that is (ε, δ)-private at one δ is so at every other δ with another ε. Whoever looks at one tiny δ alone
needs more canaries than there are to notice half the noise; at δ = 0.01 a few thousand do. Each bound may err with a
share of the risk, so that a true claim survives all of them together with the confidence that was asked for.

Some trainings choose the rule, others measure it (privacy/audit.py; here for guesses of one training as well).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedsite.privacy import audit
from fedsite.simulations.audits import one_run
from fedsite.simulations.audits.canaries import Bools, Floats

DELTAS: Final = (1e-2, 0.1)  # beside the claim's own
_SHARES: Final = (0.003, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5)  # of all canaries: guessed to be there, and not to be there


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point of a claim's curve."""

    delta: float
    claimed: float  # ε promised at this δ
    lower: float  # ε that is disproved at this δ


@dataclass(frozen=True, slots=True, kw_only=True)
class Guesses:
    """What the attacker said in the trainings that measured."""

    canaries: int
    guesses: int
    right: int


def points(
    scores: Sequence[Floats], there: Bools, delta: float, claim: Callable[[float], float], confidence: float
) -> tuple[tuple[Point, ...], Guesses]:
    """The claim's curve and what is shown against it.

    Args:
        scores: of each way to score, [run, canary]; large where the canary seems to be there.
        there: whether it was, [run, canary].
        delta: of the claim.
        claim: ε promised at a δ.
        confidence: with which a true claim survives everything here.
    """
    deltas = (delta, *(other for other in DELTAS if other > delta))
    risk = (1.0 - confidence) / (len(scores) * (len(deltas) + 1))
    found = [max(audit.epsilon_lower_bound(one[~there], one[there], at, 1.0 - risk) for one in scores) for at in deltas]
    counted = [_guesses(one, there, risk) for one in scores]
    bounds = [one_run.lower_bound(one.canaries, one.guesses, one.right, delta, risk) for one in counted]
    found[0] = max(found[0], *bounds)
    curve = tuple(Point(delta=at, claimed=claim(at), lower=lower) for at, lower in zip(deltas, found, strict=True))
    return curve, counted[int(np.argmax(bounds))]


def _guesses(scores: Floats, there: Bools, risk: float) -> Guesses:
    """Guesses of half of the trainings, by the thresholds that were best in the other half."""
    learned, present = scores[::2], there[::2]
    edges = [(np.quantile(learned, share), np.quantile(learned, 1.0 - share)) for share in (0.0, *_SHARES)]
    rules = [(low, high) for low, _ in edges for _, high in edges]
    best = max(rules, key=lambda rule: _chance(_counted(learned, present, *rule), risk))
    return _counted(scores[1::2], there[1::2], *best)


def _counted(scores: Floats, there: Bools, low: float, high: float) -> Guesses:
    """Below `low` it is guessed that a canary is not there, above `high` that it is; nothing is said in between."""
    out, there_too = scores < low, scores > high
    right = int((out & ~there).sum() + (there_too & there).sum())
    return Guesses(canaries=scores.size, guesses=int(out.sum() + there_too.sum()), right=right)


def _chance(found: Guesses, risk: float) -> float:
    """Of being right, at least: what the bound on ε follows, but for δ."""
    from scipy.special import betaincinv  # type: ignore[import-untyped]

    return float(betaincinv(found.right, found.guesses - found.right + 1, risk)) if found.right else 0.0
