"""Metrics as sums that add up over sites: what a site sends is bounded per privacy unit, the centre reads one number.

Every metric is `value(sums)` of arrays that merge by addition. A privacy unit (a window, or with `unit` a whole entity
whose windows are averaged) changes the sums by at most `sensitivity` in L2 norm: evaluation noise is scaled to that.

Conventions of a model's output: classification logits [windows, class]; binary logits [windows, 1]; regression and
forecast [windows, target] in scaled label units; anomaly scores [windows] (`anomaly_score`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsite.models import scores
from fedsite.protocol import shape
from fedsite.protocol.errors import ConfigError, DataError

Floats = NDArray[np.float64]
Sums = dict[str, Floats]

REGRESSION = ("mae", "rmse")
CLASSES = ("accuracy", "macro_f1")
RANKING = ("auroc", "best_f1", "f1_at_threshold")
NAMES = (*CLASSES, *RANKING, *REGRESSION)

THRESHOLD_QUANTILE = 0.99
THRESHOLD_FACTOR = 1.5
_LARGEST_ERROR = 1e9  # a diverged model's error stays a number that can be sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The part of a task's metric that its arithmetic needs; any object with these attributes will do."""

    name: str
    maximum: float | None = None  # label units; a window's error is clipped here. None: unbounded, so never with noise
    quantile: float = THRESHOLD_QUANTILE  # f1_at_threshold: of the reference scores
    factor: float = THRESHOLD_FACTOR  # f1_at_threshold: threshold = factor * quantile

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ConfigError(f"unknown metric {self.name!r}", allowed=shape.nearest(self.name, list(NAMES)))
        if self.maximum is not None and not 0 < self.maximum < _LARGEST_ERROR:
            raise ConfigError(f"metric.maximum is {self.maximum}", allowed=f"above 0, below {_LARGEST_ERROR:g}")


def read(metric: Any) -> Metric:
    """The metric of a task: a `Metric`, a name, the task document's mapping, or any object with these attributes.

    Raises:
        ConfigError: unknown name, or a maximum out of range.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        return Metric(name=metric)
    get = metric.get if isinstance(metric, Mapping) else lambda key, default=None: getattr(metric, key, default)
    return Metric(
        name=str(get("name")),
        maximum=get("maximum"),
        quantile=get("quantile", None) or THRESHOLD_QUANTILE,
        factor=get("factor", None) or THRESHOLD_FACTOR,
    )


def anomaly_score(x: NDArray[np.floating], reconstruction: NDArray[np.floating]) -> Floats:
    """Mean squared error of each window. x, reconstruction: [windows, time, feature] normalised; returns [windows]."""
    error = np.asarray(x, np.float64) - np.asarray(reconstruction, np.float64)
    score: Floats = np.square(error).reshape(len(error), -1).mean(axis=1) if len(error) else np.zeros(0)
    return score


def sums(
    metric: Any,
    prediction: NDArray[np.floating],
    target: NDArray[np.generic],
    *,
    scale: float | NDArray[np.floating] = 1.0,
    unit: NDArray[np.integer] | None = None,
    reference: NDArray[np.floating] | None = None,
    reference_unit: NDArray[np.integer] | None = None,
) -> Sums:
    """What one site adds to a metric.

    Args:
        metric: see `read`.
        prediction: the model's output, or anomaly scores [windows].
        target: classes [windows], ground truth 0/1 [windows], or [windows, target] in scaled label units.
        scale: label units per scaled unit (the task's `label.scale`), a number or [target].
        unit: the entity of each window [windows] when the privacy unit is the entity: each then weighs one.
        reference: scores of the training windows [windows], for f1_at_threshold (its threshold comes from them).
        reference_unit: the entity of each training window, as `unit`.

    Raises:
        DataError: prediction and target do not fit each other.
    """
    chosen = read(metric)
    weight = _weights(len(target), unit)
    if chosen.name in REGRESSION:
        return _regression(chosen, prediction, target, np.asarray(scale, np.float64), weight)
    if chosen.name in CLASSES:
        return _classes(chosen, prediction, target, weight)
    truth = _truth(prediction, target)
    score = scores.of(prediction)
    found = {"histogram": np.stack([scores.histogram(score, weight * (truth == kind)) for kind in (False, True)])}
    if chosen.name == "f1_at_threshold" and reference is not None:
        found["reference"] = scores.histogram(scores.of(reference), _weights(len(reference), reference_unit))
    return found


def value(metric: Any, total: Mapping[str, NDArray[np.floating]], *, threshold: float | None = None) -> float | None:
    """The metric of summed (and perhaps noised) sums, in label units; None where there is nothing to judge.

    `threshold` is for f1_at_threshold; without it the reference scores give it, or else the normal windows themselves.
    Noise can make a count negative: such a count is read as zero.
    """
    chosen = read(metric)
    if chosen.name in REGRESSION:
        count = float(total["count"][0])
        if not count > 0:
            return None
        bound = chosen.maximum if chosen.maximum is not None else 1.0
        mean = max(float(total["error"][0]), 0.0) / count
        return bound * (math.sqrt(mean) if chosen.name == "rmse" else mean)
    if chosen.name == "accuracy":
        correct, count = (float(item) for item in total["correct"])
        return min(max(correct, 0.0) / count, 1.0) if count > 0 else None
    if chosen.name == "macro_f1":
        return _macro_f1(np.maximum(np.asarray(total["confusion"], np.float64), 0.0))
    histogram = np.asarray(total["histogram"], np.float64)
    if chosen.name == "auroc":
        return scores.auroc(histogram)
    if chosen.name == "best_f1":
        return scores.best_f1(histogram)
    if threshold is None:
        edge = scores.quantile(np.asarray(total.get("reference", histogram[0]), np.float64), chosen.quantile)
        threshold = None if edge is None else edge * chosen.factor
    return None if threshold is None else scores.f1_above(histogram, threshold)


def exact(
    metric: Any,
    prediction: NDArray[np.floating],
    target: NDArray[np.generic],
    *,
    scale: float | NDArray[np.floating] = 1.0,
    reference: NDArray[np.floating] | None = None,
    threshold: float | None = None,
) -> float | None:
    """The metric of raw predictions in one place, without bins or clipping; arguments as in `sums` and `value`."""
    chosen = read(metric)
    if chosen.name in REGRESSION:
        chosen = Metric(name=chosen.name)
    if chosen.name not in RANKING:
        return value(chosen, sums(chosen, prediction, target, scale=scale))
    truth, score = _truth(prediction, target), scores.of(prediction)
    if chosen.name == "auroc":
        return scores.exact_auroc(score, truth)
    if chosen.name == "best_f1":
        return scores.exact_best_f1(score, truth)
    if threshold is None:
        known = score[~truth] if reference is None else scores.of(reference)
        threshold = float(np.quantile(known, chosen.quantile)) * chosen.factor if len(known) else None
    return None if threshold is None else scores.exact_f1(score > threshold, truth)


def sensitivity(metric: Any) -> float:
    """Largest L2 change of the sums when one privacy unit is added or removed.

    Raises:
        ConfigError: an error metric without a maximum has no bound.
    """
    chosen = read(metric)
    if chosen.name in REGRESSION and chosen.maximum is None:
        raise ConfigError(
            f"metric {chosen.name} has no maximum, so one window could change it without bound",
            allowed="metric.maximum in label units",
            next_step="add metric.maximum to the task, or set privacy.evaluation_noise=0",
        )
    # One unit adds at most 1 to a clipped error or a hit and 1 to the count; a histogram gets one count in all.
    # An entity split in time stands in both the holdout's histogram and the reference.
    return 1.0 if chosen.name in ("macro_f1", "auroc", "best_f1") else math.sqrt(2.0)


def _regression(
    metric: Metric, prediction: NDArray[np.floating], target: NDArray[np.generic], scale: Floats, weight: Floats
) -> Sums:
    wanted = np.asarray(target, np.float64)
    wanted = wanted[:, None] if wanted.ndim == 1 else wanted
    given = np.asarray(prediction, np.float64)
    if given.shape != wanted.shape:
        raise _misfit(metric.name, prediction, target)
    error = np.nan_to_num(np.abs(given - wanted) * scale, nan=_LARGEST_ERROR, posinf=_LARGEST_ERROR)
    window = np.sqrt(np.square(error).mean(axis=1)) if metric.name == "rmse" else error.mean(axis=1)
    bound = metric.maximum if metric.maximum is not None else 1.0
    window = np.minimum(window, metric.maximum if metric.maximum is not None else _LARGEST_ERROR) / bound
    powered = np.square(window) if metric.name == "rmse" else window
    return {"error": np.array([(weight * powered).sum()]), "count": np.array([weight.sum()])}


def _classes(metric: Metric, prediction: NDArray[np.floating], target: NDArray[np.generic], weight: Floats) -> Sums:
    if prediction.ndim != 2 or target.ndim != 1 or len(prediction) != len(target):
        raise _misfit(metric.name, prediction, target)
    binary = prediction.shape[1] == 1
    classes = 2 if binary else prediction.shape[1]
    chosen = (prediction[:, 0] > 0).astype(np.int64) if binary else prediction.argmax(axis=1)
    truth = target.astype(np.int64)
    if len(truth) and not (truth.min() >= 0 and truth.max() < classes):
        raise DataError(f"labels {truth.min()} to {truth.max()}", allowed=f"0 to {classes - 1}")
    if metric.name == "accuracy":
        return {"correct": np.array([(weight * (chosen == truth)).sum(), weight.sum()])}
    cells = np.bincount(truth * classes + chosen, weights=weight, minlength=classes * classes)
    return {"confusion": cells.astype(np.float64).reshape(classes, classes)}


def _macro_f1(confusion: Floats) -> float | None:
    """Mean F1 over the classes that occur. confusion: [truth, predicted]."""
    hits = np.diagonal(confusion)
    occurrences = confusion.sum(axis=0) + confusion.sum(axis=1)
    seen = occurrences > 0
    return float((2 * hits[seen] / occurrences[seen]).mean()) if seen.any() else None


def _truth(prediction: NDArray[np.floating], target: NDArray[np.generic]) -> NDArray[np.bool_]:
    if prediction.ndim > 2 or (prediction.ndim == 2 and prediction.shape[1] != 1) or len(prediction) != len(target):
        raise _misfit("a ranking metric", prediction, target)
    truth = target if target.ndim == 1 else target[:, 0]
    return truth.astype(np.float64) > 0.5


def _weights(count: int, unit: NDArray[np.integer] | None) -> Floats:
    if unit is None:
        return np.ones(count)
    _, index, sizes = np.unique(unit, return_inverse=True, return_counts=True)
    return 1.0 / sizes[index]


def _misfit(name: str, prediction: NDArray[np.floating], target: NDArray[np.generic]) -> DataError:
    return DataError(
        f"{name} got predictions {list(prediction.shape)} and targets {list(target.shape)}",
        allowed="shapes that belong together",
        next_step="check that the task's model, label and metric belong together",
    )
