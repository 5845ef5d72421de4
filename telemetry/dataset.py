"""What windowing yields and models eat: arrays with their meaning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Windows of one site, in order of entity and time.

    Shapes: `x` [windows, time, feature] float32, in the channels' own units until normalised; `y` [windows] int64
    (class), [windows] or [windows, target] float32 (regression, forecast), or [windows] int64 0/1 ground truth for
    anomaly tasks (never trained on); `entity` [windows] int64, an index into `entities`; `time` [windows] float64, the
    last reading's time (seconds, or the task's own count such as cycles).
    """

    x: NDArray[np.float32]
    y: NDArray[np.generic]
    entity: NDArray[np.int64]
    entities: tuple[str, ...]
    time: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: NDArray[np.generic]) -> Windows:
        """The windows at `index` (integers or a mask); entities keep their numbers."""
        return Windows(
            x=self.x[index], y=self.y[index], entity=self.entity[index], entities=self.entities, time=self.time[index]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteData:
    """One site's share of a task, split without leaks between training and holdout."""

    train: Windows
    holdout: Windows
    features: tuple[str, ...]  # names along the last axis of x
    minimum: NDArray[np.float32]  # [feature] public lower bound, from the schema's ranges (never from the data)
    maximum: NDArray[np.float32]  # [feature] public upper bound
    overlap: int  # windows that share one reading: the group size of a window-level claim (docs/privacy.md)
