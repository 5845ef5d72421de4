"""A weighted sum of updates, streamed: float64, one update in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedsite.server.strategies.strategy import Aggregate, Arrays, Update

# Elements widened to float64 at a time: the temporary stays in the processor's cache instead of doubling the update.
BLOCK = 1 << 16


class WeightedMean:
    """Σ w_k · δ_k / Σ w_k over updates with weights w_k > 0.

    Shapes: those of the trained parameters in `params`.
    """

    def __init__(self, params: Arrays, trained: tuple[str, ...]) -> None:
        # One flat array per parameter, so that a block is a plain slice.
        self._shapes = {name: params[name].shape for name in trained}
        self._sums: dict[str, NDArray[np.float64]] = {name: np.zeros(params[name].size) for name in trained}
        self._weight = 0.0
        self._count = 0
        self._sites = 0

    def add(self, update: Update) -> None:
        """Add one update.

        Raises:
            ValueError: names or shapes are not those of the trained parameters, or the weight is not above 0.
        """
        check(update.delta, self._shapes)
        if not (np.isfinite(update.weight) and update.weight > 0):
            raise ValueError(f"weight {update.weight} is not a finite number above 0")
        for name, total in self._sums.items():
            flat = np.ascontiguousarray(update.delta[name]).reshape(-1)
            for start in range(0, flat.size, BLOCK):
                part = slice(start, start + BLOCK)
                total[part] += np.multiply(flat[part], update.weight, dtype=np.float64)
        self._weight += update.weight
        self._count += 1
        self._sites += update.sites

    def result(self) -> Aggregate:
        """The weighted mean so far; the sums are not touched.

        Raises:
            ValueError: nothing was added.
        """
        if self._count == 0:
            raise ValueError("the mean of no updates")
        mean = {name: (total / self._weight).reshape(self._shapes[name]) for name, total in self._sums.items()}
        return Aggregate(delta=mean, weight=self._weight, count=self._count, sites=self._sites)


def check(delta: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse an update of other parameters.

    Raises:
        ValueError: names or shapes are not these.
    """
    if set(delta) != set(shapes):
        raise ValueError(f"parameters {sorted(delta)} instead of {sorted(shapes)}")
    for name, shape in shapes.items():
        if delta[name].shape != shape:
            raise ValueError(f"{name} has shape {delta[name].shape} instead of {shape}")
