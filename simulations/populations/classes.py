"""The class of every window that label skew goes by: its label, a bin of it, its entity, or a cluster of inputs.

A bin holds as many training windows as any other (quantiles of the first target). Clusters are of the windows' means
and spreads over time, standardised, for tasks that have no label to train on.

Source: Lloyd 1982; Arthur and Vassilvitskii 2007 (k-means++).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsite.simulations.populations.places import Ints
from fedsite.simulations.populations.spec import PartitionSpec
from fedsite.telemetry.dataset import SiteData, Windows

_LEARNED = 10_000  # windows that clusters are learned from
_PASSES = 10
_BLOCK = 1 << 16  # windows whose distances are held at once
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """Shapes: `train` and `holdout` [window] int64, numbers below `count`."""

    by: str  # label, label bins, entity, cluster
    count: int
    train: Ints
    holdout: Ints


def classify(spec: PartitionSpec, data: SiteData, *, supervised: bool, rng: np.random.Generator) -> Classes:
    """The classes of pooled data; the holdout's by what was learned from the training windows."""
    by = spec.by if spec.by != "auto" else "label" if supervised else "cluster"
    if by == "entity":
        known = np.unique(data.train.entity)
        # An entity of the holdout alone has no class: it takes any.
        return _classes("entity", len(known), np.searchsorted(known, data.train.entity), data.holdout.entity)
    if by == "cluster":
        centres, scaling = _centres(data.train, spec.bins, rng)
        return _classes("cluster", len(centres), *(_nearest(w, centres, scaling) for w in (data.train, data.holdout)))
    labels, later = (part.y if part.y.ndim == 1 else part.y[:, 0] for part in (data.train, data.holdout))
    if labels.dtype.kind in "iub":
        known = np.unique(labels)
        return _classes("label", len(known), np.searchsorted(known, labels), np.searchsorted(known, later))
    edges = np.unique(np.quantile(labels.astype(np.float64), np.arange(1, spec.bins) / spec.bins))
    found = (np.searchsorted(edges, part, side="right") for part in (labels, later))
    return _classes("label bins", len(edges) + 1, *found)


def of_units(classes: Ints, count: int, unit: Ints, units: int) -> Ints:
    """The most frequent class of each unit, [unit]; `unit` [window] below `units`."""
    order = np.lexsort((classes, unit))
    pair = unit[order] * count + classes[order]
    known, times = np.unique(pair, return_counts=True)
    best = np.lexsort((-known, times))  # the most frequent comes last, of equals the lowest class
    found = np.zeros(units, np.int64)
    found[known[best] // count] = known[best] % count
    return found


def _classes(by: str, count: int, train: Ints, holdout: Ints) -> Classes:
    return Classes(by=by, count=count, train=train.astype(np.int64), holdout=holdout.astype(np.int64) % count)


def _described(windows: Windows) -> Reals:
    """[window, 2 feature]: mean and spread over time."""
    x = windows.x.astype(np.float64)
    return np.concatenate([x.mean(axis=1), x.std(axis=1)], axis=1)


def _centres(windows: Windows, count: int, rng: np.random.Generator) -> tuple[Reals, tuple[Reals, Reals]]:
    chosen = np.sort(rng.permutation(len(windows))[:_LEARNED])
    x = _described(windows.take(chosen))
    mean, spread = x.mean(axis=0), x.std(axis=0)
    scaling = (mean, np.where(spread > 0, spread, 1.0))
    x = (x - scaling[0]) / scaling[1]
    centres = x[rng.integers(len(x), size=1)]
    while len(centres) < min(count, len(x)):
        far = _squares(x, centres).min(axis=1)
        if not far.sum() > 0:
            break
        centres = np.concatenate([centres, x[rng.choice(len(x), size=1, p=far / far.sum())]])
    for _ in range(_PASSES):
        near = _squares(x, centres).argmin(axis=1)
        sizes = np.bincount(near, minlength=len(centres))
        sums = np.stack([np.bincount(near, weights=column, minlength=len(centres)) for column in x.T], axis=1)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    return centres, scaling


def _nearest(windows: Windows, centres: Reals, scaling: tuple[Reals, Reals]) -> Ints:
    found = np.empty(len(windows), np.int64)
    for start in range(0, len(windows), _BLOCK):
        part = slice(start, start + _BLOCK)
        x = (_described(windows.take(np.arange(*part.indices(len(windows))))) - scaling[0]) / scaling[1]
        found[part] = _squares(x, centres).argmin(axis=1)
    return found


def _squares(x: Reals, centres: Reals) -> Reals:
    """Squared distances [window, centre]."""
    return np.maximum((x * x).sum(axis=1)[:, None] - 2.0 * (x @ centres.T) + (centres * centres).sum(axis=1), 0.0)
