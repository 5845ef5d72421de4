"""The sum of clipped gradients over privacy units, by explicit formulas: one forward pass, half a backward pass.

The other half, gradients of the weights, is replaced by each unit's norm and one weighted sum (`unit_gradients`). The
result is that of clipping every unit's gradient by itself and adding them up; a unit whose gradient is not finite
counts for nothing. Offered to the architectures of the catalog only, which are held against autograd, one unit at a
time, and against Opacus.

Source: Abadi et al. 2016 (arXiv:1607.00133), algorithm 1, lines 5 to 8.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsite.models import catalog
from fedsite.models.explicit import explicit
from fedsite.models.loss_gradients import gradient
from fedsite.models.losses import Loss
from fedsite.models.unit_gradients import Array, Held
from fedsite.privacy import clipping

CHUNK_NUMBERS = 1 << 22  # numbers held at once (32 MiB): bounds memory, not the result


def supported(module: nn.Module) -> bool:
    """Whether there are formulas for every trainable parameter of this model."""
    return catalog.is_built_in(module) and explicit(module) is not None


class ClippedSums:
    """Clipped sums of one model on one site's windows, in float64, at weights that may change between calls.

    Args:
        module: a `supported` model; it is copied.
        x: inputs [windows, time, feature].
        y: what the loss compares predictions with [windows, ...].
        criterion: loss of each window.
    """

    def __init__(self, module: nn.Module, x: Tensor, y: Tensor, criterion: Loss) -> None:
        shadow = copy.deepcopy(module).double()
        found = explicit(shadow)
        assert found is not None
        self._explicit = found
        self._x, self._y, self._gradient = x.numpy(), y.numpy(), gradient(criterion)
        self.parameters = [parameter for parameter in shadow.parameters() if parameter.requires_grad]
        ends = list(accumulate(parameter.numel() for parameter in self.parameters))
        spans = [slice(end - own.numel(), end) for end, own in zip(ends, self.parameters, strict=True)]
        self._parts = [(span, tuple(own.shape)) for span, own in zip(spans, self.parameters, strict=True)]
        self._numbers = ends[-1]
        with torch.no_grad():
            answer = self._explicit.forward(np.zeros((1, *x.shape[1:])))
            if len(y):
                criterion(torch.from_numpy(answer), y[:1])  # refuses shapes that do not fit
            self._held, self._passing = self._probe(answer)

    def total(self, rows: NDArray[np.int64], sizes: NDArray[np.int64] | None, bound: float) -> NDArray[np.float64]:
        """Σ clip(gradient of each unit's mean loss) over all trainable parameters in the model's order, [numbers].

        Args:
            rows: indices of the windows that take part.
            sizes: windows of each unit (1 at least), which follow one another in `rows`; None: a window is a unit.
            bound: clipping norm.

        Raises:
            PrivacyError: the bound is not positive.
        """
        found = np.zeros(self._numbers)
        totals = [found[own].reshape(shape) for own, shape in self._parts]
        if sizes is None:
            cost = np.full(len(rows), self._held + self._passing)
        else:
            cost = self._numbers + sizes * self._passing
        last = np.arange(len(rows)) + 1 if sizes is None else np.cumsum(sizes)
        for units in _chunks(cost):
            own = rows[last[units.start - 1] if units.start else 0 : last[units.stop - 1]]
            with np.errstate(all="ignore"):  # what overflows is left out
                self._add(own, None if sizes is None else sizes[units], bound, totals)
        return found

    def _add(self, rows: NDArray[np.int64], sizes: NDArray[np.int64] | None, bound: float, totals: list[Array]) -> None:
        back = self._gradient(self._explicit.forward(self._x[rows].astype(np.float64)), self._y[rows])
        if sizes is not None:
            back = back / np.repeat(sizes, sizes).reshape(-1, *[1] * (back.ndim - 1))
        self._explicit.backward(back)
        layers = self._explicit.units(None if sizes is None else sizes.tolist())
        squares = layers[0].squares()
        for layer in layers[1:]:
            squares = squares + layer.squares()
        scale = clipping.factors(np.sqrt(squares), bound)
        kept = scale > 0.0
        if not kept.all():  # infinity times zero would be NaN: such units are left out
            if not kept.any():
                return
            if sizes is None:
                self._add(rows[kept], None, bound, totals)
            else:
                self._add(rows[np.repeat(kept, sizes)], sizes[kept], bound, totals)
            return
        waiting = iter(totals)
        for layer in layers:
            layer.add(scale, [next(waiting) for _ in range(layer.parameters)])

    def _probe(self, answer: Array) -> tuple[int, int]:
        """Numbers held for each window: gradients that are made, and what passes through the layers."""
        self._explicit.backward(np.zeros_like(answer))
        layers = self._explicit.units(None)
        held = sum(part.size for layer in layers if isinstance(layer, Held) for part in layer.parts)
        return held, self._explicit.kept()


def _chunks(cost: NDArray[np.int64]) -> Iterator[slice]:
    """Consecutive units whose numbers together stay below `CHUNK_NUMBERS`; one unit at least."""
    start = 0
    while start < len(cost):
        fit = int(np.searchsorted(np.cumsum(cost[start:]), CHUNK_NUMBERS, side="right"))
        yield slice(start, start + max(fit, 1))
        start += max(fit, 1)
