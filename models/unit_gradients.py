"""Gradients of one layer's parameters for each privacy unit: their norms, and their weighted sum.

A linear layer or a convolution is a matrix product at L positions: y_l = W·A_l + bias. With A [N, L, I] what went in
and B [N, L, O] the loss's gradient of what came out, window n's gradient of W is Σ_l B_nl ⊗ A_nl, and of the bias
Σ_l B_nl. Positions are time steps, places in an image, calls of a recurrent layer, or the windows of one entity: all
are summed in the same way.

* One position: the gradient is an outer product and is never made. Its norm is |A|·|B|, and a weighted sum over units
  is one matrix product (Goodfellow 2015, arXiv:1510.01799). Nothing can cancel in |A|·|B|.
* Several positions: the gradients are made and held. The Gram form of their norm (Li et al. 2022, arXiv:2110.05679,
  section 4) is a sum with signs: what cancels in it is a norm too small, hence a clip too weak. The norm of a gradient
  that is held is the norm of what is added up, to the last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class UnitGradients(Protocol):
    """One layer's gradients, one for each unit."""

    def squares(self) -> Tensor:
        """Squared L2 norm over the layer's parameters [units]."""
        ...

    def weighted(self, scale: Tensor) -> list[Tensor]:
        """Σ scale·gradient over units, one tensor a parameter, in the model's order. scale: [units]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """One position a unit: gradients B ⊗ A, never made."""

    wanted: tuple[str, ...]
    inputs_ni: Tensor
    gradients_no: Tensor

    def squares(self) -> Tensor:
        """Squared L2 norm over the layer's parameters [units]."""
        of_bias = torch.linalg.vecdot(self.gradients_no, self.gradients_no)
        if "weight" not in self.wanted:
            return of_bias
        of_input = torch.linalg.vecdot(self.inputs_ni, self.inputs_ni)
        return of_bias * (of_input + 1.0 if "bias" in self.wanted else of_input)

    def weighted(self, scale: Tensor) -> list[Tensor]:
        """Σ scale·gradient over units, one tensor a parameter, in the model's order."""
        scaled_no = self.gradients_no * scale[:, None]
        return [scaled_no.T @ self.inputs_ni if name == "weight" else scaled_no.sum(0) for name in self.wanted]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Gradients that were made: one tensor [units, numbers] a parameter, in the model's order."""

    parts: list[Tensor]

    def squares(self) -> Tensor:
        """Squared L2 norm over the layer's parameters [units]."""
        first, *more = (torch.linalg.vecdot(part, part) for part in self.parts)
        for squares in more:
            first = first + squares
        return first

    def weighted(self, scale: Tensor) -> list[Tensor]:
        """Σ scale·gradient over units, one tensor a parameter, in the model's order."""
        return [scale @ part for part in self.parts]


def products(wanted: tuple[str, ...], a_nli: Tensor, b_nlo: Tensor, sizes: Sequence[int] | None) -> Held:
    """Gradients of weight and bias, summed over each unit's positions.

    Args:
        wanted: which of weight and bias, in the model's order.
        a_nli: what went in, [N, L, I].
        b_nlo: the loss's gradient of what came out, [N, L, O].
        sizes: windows of each unit, which follow one another; None: a window is a unit.
    """
    parts = []
    for name in wanted:
        if name == "bias":
            parts.append(per_unit(b_nlo.sum(1), sizes))
        elif sizes is None:
            parts.append(torch.bmm(b_nlo.transpose(1, 2), a_nli).flatten(1))
        else:
            found = a_nli.new_empty((len(sizes), b_nlo.shape[2], a_nli.shape[2]))
            own = zip(b_nlo.split(list(sizes)), a_nli.split(list(sizes)), found, strict=True)
            for own_b, own_a, unit in own:
                torch.mm(own_b.reshape(-1, own_b.shape[2]).T, own_a.reshape(-1, own_a.shape[2]), out=unit)
            parts.append(found.flatten(1))
    return Held(parts=parts)


def per_unit(windows_nc: Tensor, sizes: Sequence[int] | None) -> Tensor:
    """Rows of windows [N, C] summed over each unit, [units, C]."""
    if sizes is None:
        return windows_nc
    return torch.stack([own.sum(0) for own in windows_nc.split(list(sizes))])
