"""Windows as a model takes them, what it says of them, and what of that a metric takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedsite.telemetry import loading
from fedsite.telemetry.dataset import Windows
from fedsite.telemetry.statistics import Normalisation
from fedsite.telemetry.task import Task

if TYPE_CHECKING:
    from torch import nn

BATCH = 2048  # windows predicted at once


def scaled(windows: Windows, task: Task, normalisation: Normalisation) -> Windows:
    """As the model takes them; a float label becomes [windows, target]."""
    found = loading.normalise(windows, normalisation.mean, normalisation.scale, label_scale=label_scale(task))
    if found.y.dtype.kind == "f" and found.y.ndim == 1:
        return replace(found, y=found.y[:, None])
    return found


def judged(task: Task, windows: Windows, output: NDArray[np.float32]) -> NDArray[np.floating]:
    """What the metric takes: the output, or how far a reconstruction is from its window [windows]."""
    from fedsite.models import metrics

    return metrics.anomaly_score(windows.x, output) if task.loss == "reconstruction" else output


def label_scale(task: Task) -> float:
    """Label units per unit of output."""
    return float(task.label.scale or 1.0)


def predict(module: nn.Module, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The model's output for normalised windows, in order."""
    import torch

    module.eval()
    with torch.no_grad():
        parts = [module(torch.from_numpy(x[start : start + BATCH])).numpy() for start in range(0, len(x), BATCH)]
        return np.concatenate(parts) if parts else module(torch.zeros((1, *x.shape[1:]))).numpy()[:0]
