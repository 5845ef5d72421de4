"""One site's readings as arrays, before windowing; nothing here knows files or dataframes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Readings in order of entity, part (training before holdout) and time.

    Shapes: `values` [rows, channel] float32, NaN where missing; `time` [rows] float64; `entity` [rows] int64, an index
    into `entities`; `label` [rows] float64 (class index, value or 0/1 truth; NaN where unknown); `held` [rows] bool,
    True for holdout; `real` [rows] bool, False for rows put in to fill a gap.
    """

    values: NDArray[np.float32]
    time: NDArray[np.float64]
    entity: NDArray[np.int64]
    entities: tuple[str, ...]
    label: NDArray[np.float64]
    held: NDArray[np.bool_]
    real: NDArray[np.bool_]
    origin: str  # file or folder, for messages

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: NDArray[np.generic]) -> Table:
        """The rows at `index` (integers or a mask)."""
        return replace(
            self,
            values=self.values[index],
            time=self.time[index],
            entity=self.entity[index],
            label=self.label[index],
            held=self.held[index],
            real=self.real[index],
        )
