"""Steps of a model that have parameters, each with its gradient and its per-unit gradients written out.

Shapes: N windows, L positions, I numbers in and O out at each position, C channels, K places of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsite.models.steps_plain import Step
from fedsite.models.unit_gradients import Held, Outer, UnitGradients, per_unit, products

SHORT_RUN = 8  # neighbouring numbers below which a strided copy is slow
Sizes = Sequence[int] | None  # windows of each unit, one unit after the other; None: a window is a unit


class Trained(Step, Protocol):
    """A step whose parameters may be trained."""

    layers: tuple[nn.Module, ...]  # whose parameters these are
    inward: bool  # whether anything before it is trained: else its way back ends here

    def units(self, sizes: Sizes) -> list[UnitGradients]:
        """Gradients of each unit, one entry for each layer with trainable parameters, after `backward`."""
        ...


def trained_names(layer: nn.Module) -> tuple[str, ...]:
    """Names of the layer's own trainable parameters, in the model's order."""
    return tuple(name for name, parameter in layer.named_parameters(recurse=False) if parameter.requires_grad)


class Dense:
    """A linear layer on the last axis."""

    inward = True

    def __init__(self, layer: nn.Linear) -> None:
        self.layers = (layer,)
        self._layer, self._wanted = layer, trained_names(layer)

    def forward(self, *given: Tensor) -> Tensor:
        """[N, ..., I] to [N, ..., O]."""
        self._x = given[0]
        return functional.linear(given[0], self._layer.weight, self._layer.bias)

    def backward(self, gradient: Tensor) -> Tensor:
        """[N, ..., O] to [N, ..., I]."""
        self._gradient = gradient
        return gradient @ self._layer.weight if self.inward else gradient

    def units(self, sizes: Sizes) -> list[UnitGradients]:
        """Of weight and bias."""
        if not self._wanted:
            return []
        if self._x.dim() == 2 and sizes is None:
            return [Outer(wanted=self._wanted, inputs_ni=self._x, gradients_no=self._gradient)]
        a_nli, b_nlo = (part if part.dim() == 3 else part[:, None] for part in (self._x, self._gradient))
        return [products(self._wanted, a_nli, b_nlo, sizes)]


class Convolution:
    """A 1D or 2D convolution as one matrix product for the whole batch.

    Channels come last inside, so that what one place of an image sees, a patch, is a few runs of neighbouring numbers.
    Patches are made once, and multiplied forward and again for the weight's gradients. (torch's float64 convolution
    makes them too, and keeps them to itself.) Buffers stay: pages that are new at each step cost more than the copy.
    """

    inward = True

    def __init__(self, layer: nn.Conv1d | nn.Conv2d) -> None:
        self.layers = (layer,)
        self._layer, self._wanted = layer, trained_names(layer)
        self._flat = isinstance(layer, nn.Conv1d)
        self._kernel, self._stride, self._pad, self._dilation = (
            (neutral, int(size[0])) if self._flat else (int(size[0]), int(size[1]))
            for size, neutral in ((layer.kernel_size, 1), (layer.stride, 1), (layer.padding, 0), (layer.dilation, 1))
        )
        self._places = [(row, column) for row in range(self._kernel[0]) for column in range(self._kernel[1])]
        self._buffers: dict[str, Tensor] = {}

    def forward(self, *given: Tensor) -> Tensor:
        """[N, C, row, column] to [N, O, row', column']; without rows for one dimension."""
        x_nhwc = (given[0].unsqueeze(2) if self._flat else given[0]).permute(0, 2, 3, 1)
        windows, *size, channels = x_nhwc.shape
        self._size = [have + 2 * pad for have, pad in zip(size, self._pad, strict=True)]
        self._out = [
            (have - (kernel - 1) * dilation - 1) // stride + 1
            for have, kernel, dilation, stride in zip(
                self._size, self._kernel, self._dilation, self._stride, strict=True
            )
        ]
        padded = self._buffer("padded", windows, (*self._size, channels))  # its border stays zero
        self._inside(padded).copy_(x_nhwc)
        self._patches = self._buffer("patches", windows, (*self._out, *self._kernel, channels))
        if channels * (self._kernel[1] if self._dilation[1] == 1 else 1) >= SHORT_RUN:
            self._patches.copy_(self._all_seen(padded))
        else:  # place by place along the image: short runs within a patch are slow
            places = self._buffer("places", len(self._places), (windows, *self._out, channels))
            for at, (row, column) in enumerate(self._places):
                places[at].copy_(self._seen_at(padded, row, column))
            self._patches.view(-1, len(self._places), channels).copy_(
                places.view(len(places), -1, channels).transpose(0, 1)
            )
        y = self._patches.view(-1, len(self._places) * channels) @ self._weight().T
        if self._layer.bias is not None:
            y.add_(self._layer.bias)
        y_nohw = y.view(windows, *self._out, -1).permute(0, 3, 1, 2)
        return y_nohw.squeeze(2) if self._flat else y_nohw

    def backward(self, gradient: Tensor) -> Tensor:
        """[N, O, row', column'] to [N, C, row, column]."""
        windows, outputs = gradient.shape[:2]
        self._gradient = gradient.flatten(2).transpose(1, 2).contiguous()
        if not self.inward:
            return gradient
        seen = (self._gradient.view(-1, outputs) @ self._weight()).view(self._patches.shape)
        found = seen.new_zeros((windows, *self._size, seen.shape[-1]))
        for row, column in self._places:
            self._seen_at(found, row, column).add_(seen[:, :, :, row, column])
        x_nchw = self._inside(found).permute(0, 3, 1, 2)
        return x_nchw.squeeze(2) if self._flat else x_nchw

    def units(self, sizes: Sizes) -> list[UnitGradients]:
        """Of weight and bias."""
        if not self._wanted:
            return []
        a_nli = self._patches.view(len(self._patches), -1, len(self._places) * self._patches.shape[-1])
        return [products(self._wanted, a_nli, self._gradient, sizes, places=len(self._places))]

    def _weight(self) -> Tensor:
        """As the patches are: [O, K·C]."""
        return self._layer.weight.flatten(2).transpose(1, 2).flatten(1)

    def _buffer(self, name: str, first: int, rest: tuple[int, ...]) -> Tensor:
        held = self._buffers.get(name)
        if held is None or held.shape[1:] != rest or len(held) < first:
            held = self._layer.weight.new_zeros((first, *rest))
            self._buffers[name] = held
        return held[:first]

    def _inside(self, padded: Tensor) -> Tensor:
        (rows, columns), (above, left) = self._size, self._pad
        return padded[:, above : rows - above, left : columns - left]

    def _seen_at(self, padded: Tensor, row: int, column: int) -> Tensor:
        """What one place of the kernel sees: [N, row', column', C], a view."""
        starts = row * self._dilation[0], column * self._dilation[1]
        down, across = (
            slice(start, start + (out - 1) * stride + 1, stride)
            for start, out, stride in zip(starts, self._out, self._stride, strict=True)
        )
        return padded[:, down, across]

    def _all_seen(self, padded: Tensor) -> Tensor:
        """What every place of the kernel sees: [N, row', column', K, K', C], a view."""
        window, row, column, channel = padded.stride()
        strides = (row * self._stride[0], column * self._stride[1], row * self._dilation[0], column * self._dilation[1])
        shape = (len(padded), *self._out, *self._kernel, padded.shape[-1])
        return padded.as_strided(shape, (window, *strides, channel))


class Normalised:
    """GroupNorm: its weight and bias act on each channel of what it normalised."""

    inward = True

    def __init__(self, layer: nn.GroupNorm) -> None:
        self.layers = (layer,)
        self._layer, self._wanted = layer, trained_names(layer)

    def forward(self, *given: Tensor) -> Tensor:
        """[N, C, ...] to the same shape."""
        self._x = given[0].contiguous()
        windows, channels = self._x.shape[:2]
        self._sizes = windows, channels, self._x[0, 0].numel()
        layer = self._layer
        y, self._mean, self._rstd = torch.native_group_norm(
            self._x, layer.weight, layer.bias, *self._sizes, layer.num_groups, layer.eps
        )
        return y

    def backward(self, gradient: Tensor) -> Tensor:
        """[N, C, ...] to the same shape."""
        self._gradient = gradient.contiguous()
        if not self.inward:
            return gradient
        found: Tensor = torch.ops.aten.native_group_norm_backward.default(
            self._gradient, self._x, self._mean, self._rstd, self._layer.weight, *self._sizes,
            self._layer.num_groups, [True, False, False],
        )[0]  # fmt: skip
        return found

    def units(self, sizes: Sizes) -> list[UnitGradients]:
        """Of weight and bias."""
        parts = []
        for name in self._wanted:
            each = self._gradient
            if name == "weight":
                grouped = self._x.unflatten(1, (self._layer.num_groups, -1)).flatten(2)
                scaled = (grouped - self._mean[..., None]) * self._rstd[..., None]
                each = each * scaled.view_as(each)
            parts.append(per_unit(each.flatten(2).sum(2), sizes))
        return [Held(parts=parts)] if parts else []
