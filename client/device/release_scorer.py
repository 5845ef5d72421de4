"""One verified release, ready to score windows in the channels' own units; onnxruntime on one thread, no torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import IntegrityError
from fedsite.protocol.release import Manifest
from fedsite.telemetry.task import Task, read_task


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What windows gave."""

    values: NDArray[np.float64]  # anomaly score [windows], or the model's output in label units [windows, output]
    milliseconds: float  # that the model took, without what is before and after it


class WindowScorer(Protocol):
    """Whoever scores windows: a release in this process, or the agent's (local_client.AgentScorer)."""

    def scores(self, parts: Sequence[NDArray[np.float32]]) -> list[Scored]:
        """What each of `parts` gives; each is [windows, time, feature], not normalised, and scored by itself.

        Raises:
            DataError: windows of another shape. IntegrityError: the model cannot be used.
        """


class ReleaseScorer:
    """A release in this process.

    Raises:
        IntegrityError: the model does not load, or does not fit its own normalisation.
    """

    def __init__(self, manifest: Manifest, model: bytes) -> None:
        from fedsite.models.runtime import Scorer

        self.manifest = manifest
        self._task = read_task(manifest.task)
        self._mean = np.array(manifest.normalisation.mean, np.float32)
        self._scale = np.array(manifest.normalisation.scale, np.float32)
        self._scorer = Scorer(model)
        if len(self._mean) != self._scorer.features:
            raise IntegrityError(
                f"the release normalises {len(self._mean)} features", allowed=f"{self._scorer.features}"
            )

    def scores(self, parts: Sequence[NDArray[np.float32]]) -> list[Scored]:
        """As WindowScorer."""
        return [self.score(part) for part in parts]

    def score(self, x: NDArray[np.float32]) -> Scored:
        """What windows [windows, time, feature] give.

        Raises:
            DataError: windows of another shape.
        """
        from fedsite.models import metrics

        if x.ndim == 3 and x.shape[2] == len(self._mean):
            x = ((x - self._mean) / self._scale).astype(np.float32, copy=False)
        started = time.perf_counter()
        given = self._scorer.predict(x)
        took = 1e3 * (time.perf_counter() - started)
        judged = metrics.anomaly_score(x, given) if self._task.loss == "reconstruction" else given
        return Scored(values=judged.astype(np.float64) * label_units(self._task), milliseconds=took)


def label_units(task: Task) -> float:
    """Label units per unit of what the model gives; 1 where it gives no label."""
    return float(task.label.scale or 1.0) if task.loss == "mse" else 1.0
