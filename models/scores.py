"""Histograms of scores over fixed public bins: what a ranking metric needs, in a form that adds up over sites.

Bins are log-spaced, so that they fit scores of any scale. Logits enter as odds, which makes the same bins linear in the
logit (one bin is 0.022). The area under the curve from these bins is within 0.002 of the exact one where the scores
spread over a tenth of their value or more.

Shapes: `histogram` is [2, B]: counts of normal (row 0) and anomalous or positive (row 1) windows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_PER_OCTAVE = 32
_OCTAVES = 18
EDGES: Floats = np.exp2(np.arange(-_OCTAVES * _PER_OCTAVE, _OCTAVES * _PER_OCTAVE + 1) / _PER_OCTAVE)
BINS = len(EDGES) + 1  # bin b holds EDGES[b-1] < score <= EDGES[b]; the first and last are open
_LARGEST_LOGIT = 60.0


def of(prediction: NDArray[np.floating]) -> Floats:
    """Positive scores [windows] of anomaly scores [windows] or of binary logits [windows, 1]."""
    values = np.asarray(prediction, np.float64)
    if values.ndim == 2:
        return np.exp(np.clip(values[:, 0], -_LARGEST_LOGIT, _LARGEST_LOGIT))
    return values


def histogram(score: Floats, weight: Floats) -> Floats:
    """Weighted counts [B]; NaN counts as the highest score, so that a broken model cannot look normal."""
    bins = np.searchsorted(EDGES, score, side="left")
    return np.bincount(bins, weights=weight, minlength=BINS).astype(np.float64)


def auroc(counts: Floats) -> float | None:
    """Area under the ROC curve, ties within a bin counted half; None without both kinds of windows."""
    normal, positive = np.maximum(counts, 0.0)
    pairs = normal.sum() * positive.sum()
    if not pairs > 0:
        return None
    below = np.cumsum(normal) - normal
    return float((positive * (below + 0.5 * normal)).sum() / pairs)


def best_f1(counts: Floats) -> float | None:
    """The largest F1 any threshold at a bin's edge gives; None without positive windows."""
    normal, positive = np.maximum(counts, 0.0)
    if not positive.sum() > 0:
        return None
    hits = np.cumsum(positive[::-1])[::-1]
    alarms = np.cumsum(normal[::-1])[::-1]
    return float((2 * hits / np.maximum(hits + alarms + positive.sum(), 1e-12)).max())


def f1_above(counts: Floats, threshold: float) -> float | None:
    """F1 when scores above `threshold` are called positive; a bin that holds the threshold is split in proportion."""
    normal, positive = np.maximum(counts, 0.0)
    if not positive.sum() > 0:
        return None
    share = _share_above(threshold)
    hits, alarms = float((positive * share).sum()), float((normal * share).sum())
    return 2 * hits / (hits + alarms + float(positive.sum()))


def quantile(counts: Floats, q: float) -> float | None:
    """The score below which the fraction `q` of the counts [B] lies, interpolated within a bin; None when empty."""
    kept = np.maximum(counts, 0.0)
    total = kept.sum()
    if not total > 0:
        return None
    cumulative = np.cumsum(kept)
    index = int(min(np.searchsorted(cumulative, q * total), BINS - 1))
    if index == 0 or index == BINS - 1:
        return float(EDGES[min(index, BINS - 2)])
    inside = 1.0 - (cumulative[index] - q * total) / max(kept[index], 1e-12)
    return float(EDGES[index - 1] * (EDGES[index] / EDGES[index - 1]) ** inside)


def exact_auroc(score: Floats, truth: NDArray[np.bool_]) -> float | None:
    """The same area from the scores themselves (Mann and Whitney's statistic, ties counted half)."""
    positive = int(truth.sum())
    normal = len(truth) - positive
    if not positive or not normal:
        return None
    _, index, ties = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(ties) - (ties - 1) / 2)[index]
    return float((rank[truth].sum() - positive * (positive + 1) / 2) / (positive * normal))


def exact_best_f1(score: Floats, truth: NDArray[np.bool_]) -> float | None:
    """The largest F1 any threshold gives."""
    if not truth.any():
        return None
    order = np.argsort(-score, kind="stable")
    hits, called = np.cumsum(truth[order]), np.arange(1, len(truth) + 1)
    # A threshold cannot fall between equal scores.
    last = np.append(np.diff(score[order]) != 0, True)
    return float((2 * hits / (called + truth.sum()))[last].max())


def exact_f1(called: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float | None:
    """F1 of a decision; None without positive windows."""
    if not truth.any():
        return None
    return float(2 * (called & truth).sum() / (called.sum() + truth.sum()))


def _share_above(threshold: float) -> Floats:
    lower = np.concatenate([[0.0], EDGES])
    upper = np.concatenate([EDGES, [np.inf]])
    with np.errstate(invalid="ignore"):
        inside = (upper - threshold) / (upper - lower)
    return np.where(lower >= threshold, 1.0, np.where(upper <= threshold, 0.0, np.nan_to_num(inside, nan=1.0)))
