"""How much int8 costs: the metric before and after quantization, and how far the two models' answers lie apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedsite.models import runtime

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """A metric of both models; None where it could not be measured."""

    metric: str
    better: Better
    fp32: float | None
    int8: float | None

    @property
    def loss(self) -> float | None:
        """Relative loss of the metric, positive when int8 is worse; None where either is missing."""
        if self.fp32 is None or self.int8 is None:
            return None
        worse = self.int8 - self.fp32 if self.better == "lower" else self.fp32 - self.int8
        return worse / max(abs(self.fp32), 1e-12)

    def within(self, bound: float) -> bool | None:
        """Whether the loss is at most `bound` (the task's `release.parity`); None where it could not be measured."""
        return None if self.loss is None else self.loss <= bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Distance of two models' answers to the same windows: needs no labels."""

    windows: int
    relative_error: float  # root mean square of the difference, over that of the fp32 output around its mean
    largest_error: float  # largest difference of one number
    same_class: float | None  # share of windows given the same class; None when the output is not classes


def agreement(fp32: bytes, int8: bytes, x: NDArray[np.floating], *, classes: bool = False) -> Agreement:
    """Compare two ONNX models on windows [windows, time, feature]: synthetic ones at the centre, its own at a site.

    Raises:
        IntegrityError: either is not a model.
        DataError: the windows do not fit.
    """
    before = runtime.Scorer(fp32).predict(x).astype(np.float64)
    after = runtime.Scorer(int8).predict(x).astype(np.float64)
    spread = np.sqrt(np.square(before - before.mean(axis=0)).mean()) if len(x) else 0.0
    difference = np.abs(after - before)
    same = None
    if classes and len(x):
        same = float((_chosen(before) == _chosen(after)).mean())
    return Agreement(
        windows=len(x),
        relative_error=float(np.sqrt(np.square(difference).mean()) / max(spread, 1e-12)) if len(x) else 0.0,
        largest_error=float(difference.max(initial=0.0)),
        same_class=same,
    )


def _chosen(logits: NDArray[np.float64]) -> NDArray[np.generic]:
    return logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(axis=1)
