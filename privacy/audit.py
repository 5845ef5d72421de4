"""What an attacker can show about a mechanism: a lower bound on its ε from the answers it gave, at a stated confidence.

Run the mechanism often on two neighbouring data sets and score every answer. Any rule that tells the two apart better
than (ε, δ) allows disproves the claim. Half of the runs choose the rule, the other half measure it, so that the choice
cannot flatter itself.

Source: Jagielski, Ullman and Oprea 2020 (arXiv:2006.07709), with Clopper and Pearson's exact intervals.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedsite.privacy.errors import PrivacyError


def epsilon_lower_bound(
    without: NDArray[np.floating], with_record: NDArray[np.floating], delta: float, confidence: float = 0.999
) -> float:
    """The largest ε that the scores disprove anything below of; 0 when they disprove nothing.

    Args:
        without: scores of the answers on the data without the record [runs].
        with_record: scores with it [runs].
        delta: δ of the claim.
        confidence: probability that a true claim survives.

    Raises:
        PrivacyError: too few runs to say anything.
    """
    if min(len(without), len(with_record)) < 20:
        raise PrivacyError(f"{min(len(without), len(with_record))} runs of one kind", allowed="at least 20")
    rule = _best_rule(without[::2], with_record[::2], delta, confidence)
    return max(0.0, _shown(rule, without[1::2], with_record[1::2], delta, confidence))


def _best_rule(
    without: NDArray[np.floating], with_record: NDArray[np.floating], delta: float, confidence: float
) -> tuple[float, bool, bool]:
    """Threshold, whether the rule fires above it, and whether firing means that the record is there."""
    edges = np.unique(np.quantile(np.concatenate([without, with_record]), np.linspace(0.005, 0.995, 199)))
    rules = [(float(edge), above, present) for edge in edges for above in (True, False) for present in (True, False)]
    return max(rules, key=lambda rule: _shown(rule, without, with_record, delta, confidence))


def _shown(
    rule: tuple[float, bool, bool],
    without: NDArray[np.floating],
    with_record: NDArray[np.floating],
    delta: float,
    confidence: float,
) -> float:
    """ε that one rule shows: from the least its hits and the most its false alarms can be."""
    from scipy.special import betaincinv  # type: ignore[import-untyped]

    edge, above, present = rule
    meant, other = (with_record, without) if present else (without, with_record)
    hits, alarms = (int(((scores > edge) if above else (scores <= edge)).sum()) for scores in (meant, other))
    tail = (1.0 - confidence) / 2.0
    least = float(betaincinv(hits, len(meant) - hits + 1, tail)) if hits else 0.0
    most = float(betaincinv(alarms + 1, len(other) - alarms, 1.0 - tail)) if alarms < len(other) else 1.0
    return math.log((least - delta) / most) if least > delta else -math.inf
