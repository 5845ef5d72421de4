"""Gradients of one layer's parameters for each privacy unit: their norms, and their weighted sum.

A linear layer or a convolution is a matrix product at L positions: y_l = W·A_l + bias. With A [N, L, I] what went in
and B [N, L, O] the loss's gradient of what came out, window n's gradient of W is Σ_l B_nl ⊗ A_nl, and of the bias
Σ_l B_nl. Positions are time steps, places in an image, calls of a recurrent layer, or the windows of one entity: all
are summed in the same way.

* One position: the gradient is an outer product and is never made. Its norm is |A|·|B|, and a weighted sum over units
  is one matrix product (Goodfellow 2015, arXiv:1510.01799). Nothing can cancel in |A|·|B|; where one of them is so
  small that its square loses bits, and the other so large that these count, the unit counts for nothing.
* Several positions: the gradients are made and held. The Gram form of their norm (Li et al. 2022, arXiv:2110.05679,
  section 4) is a sum with signs: what cancels in it is a norm too small, hence a clip too weak. The norm of a gradient
  that is held is the norm of what is added up, to the last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
_SMALL = 2.0**-900  # squares below 2^-1074 vanish: 2^30 of them are 2^-144 of a sum that is not smaller than this
_LARGE = 2.0**800  # times a smaller sum: a norm below 2^-50, of which 2^-122 vanishes at most


class UnitGradients(Protocol):
    """One layer's gradients, one for each unit."""

    @property
    def parameters(self) -> int:
        """How many of the layer's parameters are trained."""
        ...

    def squares(self) -> Array:
        """Squared L2 norm over the layer's parameters [units]."""
        ...

    def add(self, scale: Array, totals: Sequence[Array]) -> None:
        """Add Σ scale·gradient over units to the totals, one a parameter in the model's order. scale: [units]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """One position a unit: gradients B ⊗ A, never made."""

    wanted: tuple[str, ...]
    inputs_ni: Array
    gradients_no: Array

    @property
    def parameters(self) -> int:
        """How many of the layer's parameters are trained."""
        return len(self.wanted)

    def squares(self) -> Array:
        """Squared L2 norm over the layer's parameters [units]."""
        of_bias = _squares(self.gradients_no)
        if "weight" not in self.wanted:
            return of_bias
        of_input = _squares(self.inputs_ni)
        # Weights that a hostile centre made could have |B|² vanish in a float64, and |A|·|B| pass the clipping norm.
        lost = (np.minimum(of_bias, of_input) < _SMALL) & (np.maximum(of_bias, of_input) > _LARGE)
        if "bias" in self.wanted:
            of_input, lost = of_input + 1.0, lost & (of_bias < of_input)
        return np.where(lost, np.inf, of_bias * of_input)

    def add(self, scale: Array, totals: Sequence[Array]) -> None:
        """Add Σ scale·gradient over units to the totals, one a parameter in the model's order."""
        for name, total in zip(self.wanted, totals, strict=True):
            if name == "weight":
                total += (self.gradients_no * scale[:, None]).T @ self.inputs_ni
            else:
                total += scale @ self.gradients_no


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Gradients that were made: one tensor [units, numbers] a parameter, in the model's order.

    A convolution's weight is [units, O, K, C]: its channels come last, and first among the model's parameters.
    """

    parts: list[Array]

    @property
    def parameters(self) -> int:
        """How many of the layer's parameters are trained."""
        return len(self.parts)

    def squares(self) -> Array:
        """Squared L2 norm over the layer's parameters [units]."""
        first, *more = (_squares(part.reshape(len(part), -1)) for part in self.parts)
        for squares in more:
            first += squares
        return first

    def add(self, scale: Array, totals: Sequence[Array]) -> None:
        """Add Σ scale·gradient over units to the totals, one a parameter in the model's order."""
        for part, total in zip(self.parts, totals, strict=True):
            found = scale @ part.reshape(len(part), -1)
            if part.ndim == 4:
                found = found.reshape(part.shape[1:]).swapaxes(1, 2)
            total += found.reshape(total.shape)


def products(
    wanted: tuple[str, ...], a_nli: Array, b_nlo: Array, sizes: Sequence[int] | None, *, places: int = 1
) -> Held:
    """Gradients of weight and bias, summed over each unit's positions.

    Args:
        wanted: which of weight and bias, in the model's order.
        a_nli: what went in, [N, L, I].
        b_nlo: the loss's gradient of what came out, [N, L, O].
        sizes: windows of each unit, which follow one another; None: a window is a unit.
        places: of a convolution's kernel: I is places × channels.
    """
    parts = []
    for name in wanted:
        if name == "bias":
            parts.append(per_unit(torch.from_numpy(b_nlo).sum(1).numpy(), sizes))
            continue
        if sizes is None:
            # torch's batched product: NumPy's multiplies one window after the other.
            found = torch.bmm(torch.from_numpy(b_nlo).transpose(1, 2), torch.from_numpy(a_nli)).numpy()
        else:
            found = np.empty((len(sizes), b_nlo.shape[2], a_nli.shape[2]))
            end = 0
            for unit, size in enumerate(sizes):
                own_b, own_a = (both[end : end + size].reshape(-1, both.shape[2]) for both in (b_nlo, a_nli))
                np.matmul(own_b.T, own_a, out=found[unit])
                end += size
        parts.append(
            found.reshape(len(found), found.shape[1], places, -1) if places > 1 else found.reshape(len(found), -1)
        )
    return Held(parts=parts)


def per_unit(windows_nc: Array, sizes: Sequence[int] | None) -> Array:
    """Rows of windows [N, C] summed over each unit, [units, C]."""
    if sizes is None:
        return windows_nc
    starts = np.cumsum([0, *sizes[:-1]])
    found: Array = np.add.reduceat(windows_nc, starts, axis=0)
    return found


def _squares(rows_nc: Array) -> Array:
    """Squared L2 norm of each row."""
    found: Array = np.einsum("nc,nc->n", rows_nc, rows_nc)
    return found
