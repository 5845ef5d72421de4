"""Federated sums: normalisation statistics and evaluation, added up over sites before anything is read off them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsite.models import metrics
from fedsite.protocol.plan import RoundPlan
from fedsite.server.rounds.replies import Shape
from fedsite.telemetry.statistics import Normalisation, Sums, schema_normalisation, unit_bound
from fedsite.telemetry.task import Task

EVALUATION = "evaluation/"
PARITY = "parity/"  # the same sums of the int8 model
STATISTICS = "statistics/"
_REFERENCE = "reference"


class Total:
    """Arrays of one prefix, summed in float64; an array that a site leaves out adds nothing."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._sums: dict[str, NDArray[np.float64]] = {}
        self.count = 0  # sites

    def add(self, values: Mapping[str, NDArray[Any]], sites: int = 1) -> None:
        """Add the arrays of one site, or of several summed; those of another prefix are not for this total."""
        found = {name: value for name, value in values.items() if name.startswith(self._prefix)}
        for name, value in found.items():
            key = name.removeprefix(self._prefix)
            # A copy at first: the reply's own array is not kept alive.
            self._sums[key] = self._sums[key] + value if key in self._sums else np.array(value, np.float64)
        self.count += sites if found else 0

    @property
    def sums(self) -> Mapping[str, NDArray[np.float64]]:
        """The sums by name, without the prefix."""
        return self._sums


def evaluates(plan: RoundPlan) -> bool:
    """Whether sites judge a model on their holdouts: free without privacy, else only with noise."""
    return plan.privacy.mode == "none" or plan.privacy.evaluation_noise > 0


def reads_statistics(plan: RoundPlan) -> bool:
    """Whether normalisation comes from the sites' data, or from the schema's public ranges."""
    return plan.privacy.mode == "none" or plan.privacy.statistics_noise > 0


def calibrates(plan: RoundPlan) -> bool:
    """Whether the int8 ranges come from the sites' data."""
    return plan.privacy.mode == "none" or plan.privacy.calibration_noise > 0


def statistics_shapes(task: Task) -> dict[str, Shape]:
    """What `statistics` answers with."""
    features = len(task.feature_names)
    return {f"{STATISTICS}count": (1,), f"{STATISTICS}sum": (features,), f"{STATISTICS}square": (features,)}


def evaluation_shapes(task: Task) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Required and optional arrays of an evaluation: those of a site without windows."""
    name = task.metric.name
    ranking = name not in metrics.REGRESSION and name not in metrics.CLASSES
    prediction: NDArray[np.float64] = np.zeros(0) if ranking else np.zeros((0, task.outputs))
    target: NDArray[Any] = prediction if name in metrics.REGRESSION else np.zeros(0, dtype=np.int64)
    empty = metrics.sums(task.metric, prediction, target)
    required = {EVALUATION + key: value.shape for key, value in empty.items() if key != _REFERENCE}
    optional: dict[str, Shape] = {}
    if "histogram" in empty:
        optional[EVALUATION + _REFERENCE] = empty["histogram"].shape[1:]
    return required, optional


def spread(plan: RoundPlan, sites: int) -> float:
    """Standard deviation of the noise in a sum over so many sites, over what the plan says of one release.

    Each site adds a whole share by itself, or such a part that the smallest sum that is opened has one.
    """
    if plan.privacy.mode == "none":
        return 0.0
    return math.sqrt(sites / plan.protection.terms.honest if plan.privacy.site_level else sites)


def normalisation(task: Task, total: Total | None, noise: float = 0.0) -> Normalisation:
    """The run's normalisation: from the sites' sums, or from the schema alone where there are none.

    `noise` is the standard deviation of what is in the sums, over what one unit can move them by.
    """
    bounds = np.asarray(task.feature_bounds, dtype=np.float32)
    if total is None or not total.count:
        return schema_normalisation(bounds[:, 0], bounds[:, 1])
    sums = Sums(count=total.sums["count"], total=total.sums["sum"], square=total.sums["square"])
    return sums.normalisation(bounds[:, 0], bounds[:, 1], noise=noise * unit_bound(len(bounds)))


def value(task: Task, total: Total) -> float | None:
    """The task's metric of summed evaluations; None where there is nothing to judge."""
    # In a secure sum an array that no site has is there too, and zero.
    sums = {name: item for name, item in total.sums.items() if name != _REFERENCE or item.any()}
    found = metrics.value(task.metric, sums) if total.count else None
    return found if found is None else float(found)


def comparable(one: Total, other: Total) -> bool:
    """Whether two evaluations are of the same number of windows; a secure sum says so only up to its grid."""
    return math.isclose(_windows(one), _windows(other), rel_tol=1e-6, abs_tol=1e-3)


def _windows(total: Total) -> float:
    sums = total.sums
    if "correct" in sums:
        return float(sums["correct"][1])
    return float(sum(sums[name].sum() for name in ("count", "confusion", "histogram") if name in sums))


def plain(found: Normalisation) -> dict[str, list[float]]:
    """Normalisation as it stands in an instruction."""
    return {"mean": [float(item) for item in found.mean], "scale": [float(item) for item in found.scale]}


def read_plain(value: Mapping[str, Any]) -> Normalisation:
    """The inverse of `plain`."""
    return Normalisation(
        mean=np.asarray(value["mean"], dtype=np.float32), scale=np.asarray(value["scale"], dtype=np.float32)
    )
