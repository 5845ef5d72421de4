"""What a request to the worker brings, read and checked before any of the site's data is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from fedsite.client.sums import terms
from fedsite.protocol import weights
from fedsite.protocol.errors import DocumentError
from fedsite.protocol.messages import DELTA
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.telemetry.task import Task, read_task

WEIGHTS_LIMIT = 1 << 30  # bytes

Shapes = Mapping[str, tuple[int, ...]]  # by parameter


@lru_cache(maxsize=4)
def plan(data: bytes) -> RoundPlan:
    """The plan in these bytes, which come with every request."""
    return RoundPlan.parse(data)


def task(asked: RoundPlan) -> Task:
    """The plan's."""
    return read_task(asked.task)


def checked(blobs: Mapping[str, bytes]) -> tuple[RoundPlan, Task, dict[str, np.ndarray], Shapes]:
    """Plan, task, weights and the shapes of what is trained of them.

    Raises:
        IntegrityError: weights that are not this model's.
        DocumentError: a manifest that sums other updates than the model's.
    """
    from fedsite.client.work import rounds as work
    from fedsite.models import vector

    asked = plan(blobs["plan"])
    found = task(asked)
    model = weights.decode(blobs["model"], limit=WEIGHTS_LIMIT)
    module = work.build(asked, found)
    vector.load(module, model)
    trained = {name: model[name].shape for name in vector.trainable(module, asked.model.trainable)}
    if "manifest" in blobs:
        terms.check_deltas(Manifest.parse(blobs["manifest"]), {DELTA + name: shape for name, shape in trained.items()})
    return asked, found, model, trained


def calibration(task: Task, arguments: Mapping[str, Any], graph: bytes) -> tuple[Any, list[str]]:
    """Normalisation and tensors of a calibration; whatever can be refused of it without data is.

    Raises:
        IntegrityError: the graph is not one of our export's kind, or does not show the tensors.
        DocumentError: the normalisation does not fit, or no tensors are named.
    """
    from fedsite.models import extremes, onnx_limits

    outputs = onnx_limits.check(graph).graph.outputs
    tensors = arguments.get("tensors")
    if not isinstance(tensors, list) or not all(isinstance(name, str) for name in tensors):
        raise DocumentError("a calibration that names no tensors", allowed="body with tensors, a list of names")
    extremes.check_taps(tensors, outputs)
    return normalisation(task, arguments), tensors


def normalisation(task: Task, arguments: Mapping[str, Any]) -> Any:
    """The federation's normalisation out of an instruction.

    Raises:
        DocumentError: not one finite mean and one positive scale per feature.
    """
    from fedsite.telemetry.statistics import Normalisation

    count = len(task.feature_names)
    body = arguments.get("normalisation")
    try:
        mean = np.asarray(body["mean"], np.float64)  # type: ignore[index]
        scale = np.asarray(body["scale"], np.float64)  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        raise DocumentError("normalisation is missing or not numbers", allowed="mean and scale") from None
    shapes = mean.shape == scale.shape == (count,)
    if not shapes or not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
        raise DocumentError("normalisation does not fit", allowed=f"{count} finite means and positive scales")
    return Normalisation(mean=mean.astype(np.float32), scale=scale.astype(np.float32))
