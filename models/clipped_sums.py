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

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsite.models import catalog
from fedsite.models.explicit import explicit
from fedsite.models.loss_gradients import gradient
from fedsite.models.losses import Loss
from fedsite.models.unit_gradients import Held
from fedsite.privacy import clipping

CHUNK_NUMBERS = 1 << 20  # numbers held at once (8 MiB): memory is bounded, and what stays in a cache is quicker


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
        self._x, self._y, self._criterion, self._gradient = x, y, criterion, gradient(criterion)
        self.parameters = [parameter for parameter in shadow.parameters() if parameter.requires_grad]
        self._numbers = sum(parameter.numel() for parameter in self.parameters)
        with torch.no_grad():
            self._held, self._passing = self._probe(shadow)

    @torch.no_grad()
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
        if sizes is None:
            cost = np.full(len(rows), self._held + self._passing)
        else:
            cost = self._numbers + sizes * self._passing
        last = np.arange(len(rows)) + 1 if sizes is None else np.cumsum(sizes)
        for units in _chunks(cost):
            own = rows[last[units.start - 1] if units.start else 0 : last[units.stop - 1]]
            found += self._chunk(own, None if sizes is None else sizes[units], bound)
        return found

    def _chunk(self, rows: NDArray[np.int64], sizes: NDArray[np.int64] | None, bound: float) -> NDArray[np.float64]:
        index = torch.from_numpy(rows)
        back = self._gradient(self._explicit.forward(self._x[index].double()), self._y[index])
        if sizes is not None:
            back = back / torch.from_numpy(np.repeat(sizes, sizes)).view(-1, *[1] * (back.dim() - 1))
        self._explicit.backward(back)
        layers = self._explicit.units(None if sizes is None else sizes.tolist())
        squares = layers[0].squares()
        for layer in layers[1:]:
            squares = squares + layer.squares()
        scale = clipping.factors(squares.sqrt_().numpy(), bound)
        if (scale == 0.0).any():  # infinity times zero would be NaN: such units are left out
            kept = scale > 0.0
            if not kept.any():
                return np.zeros(self._numbers)
            if sizes is None:
                return self._chunk(rows[kept], None, bound)
            return self._chunk(rows[np.repeat(kept, sizes)], sizes[kept], bound)
        factors = torch.from_numpy(scale)
        return torch.cat([part.flatten() for layer in layers for part in layer.weighted(factors)]).numpy()

    def _probe(self, shadow: nn.Module) -> tuple[int, int]:
        """Numbers held for each window: gradients that are made, and what passes through the layers."""
        answer = self._explicit.forward(torch.zeros((1, *self._x.shape[1:]), dtype=torch.float64))
        if len(self._y):
            self._criterion(answer, self._y[:1])
        self._explicit.backward(torch.zeros_like(answer))
        layers = self._explicit.units(None)
        held = sum(part.numel() for layer in layers if isinstance(layer, Held) for part in layer.parts)
        return held, self._explicit.kept()


def _chunks(cost: NDArray[np.int64]) -> Iterator[slice]:
    """Consecutive units whose numbers together stay below `CHUNK_NUMBERS`; one unit at least."""
    start, taken = 0, 0
    for unit, numbers in enumerate(cost.tolist()):
        if unit > start and taken + numbers > CHUNK_NUMBERS:
            yield slice(start, unit)
            start, taken = unit, 0
        taken += numbers
    if len(cost) > start:
        yield slice(start, len(cost))
