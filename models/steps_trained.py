"""Steps of a model that have parameters, each with its gradient and its per-unit gradients written out.

Shapes: N windows, L positions, I numbers in and O out at each position, C channels, K places of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fedsite.models.steps_plain import Array, Step
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


def values(parameter: Tensor) -> Array:
    """The numbers of a parameter, where they are: what is written there later is seen here."""
    found: Array = parameter.detach().numpy()
    return found


def copy(into: Array, numbers: Array) -> None:
    """Strided copy by torch, which is quicker for many numbers."""
    torch.from_numpy(into).copy_(torch.from_numpy(numbers))


def product(left: Array, right: Array) -> Array:
    """Matrix product by torch, which is quicker for many rows of few numbers."""
    found: Array = torch.mm(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    return found


class Dense:
    """A linear layer on the last axis."""

    inward = True

    def __init__(self, layer: nn.Linear) -> None:
        self.layers = (layer,)
        self._wanted = trained_names(layer)
        self._weight, self._bias = values(layer.weight), None if layer.bias is None else values(layer.bias)

    def forward(self, *given: Array) -> Array:
        """[N, ..., I] to [N, ..., O]."""
        self._x = given[0]
        found: Array = given[0] @ self._weight.T
        if self._bias is not None:
            found += self._bias
        return found

    def backward(self, gradient: Array) -> Array:
        """[N, ..., O] to [N, ..., I]."""
        self._gradient = gradient
        return gradient @ self._weight if self.inward else gradient

    def units(self, sizes: Sizes) -> list[UnitGradients]:
        """Of weight and bias."""
        if not self._wanted:
            return []
        if self._x.ndim == 2 and sizes is None:
            return [Outer(wanted=self._wanted, inputs_ni=self._x, gradients_no=self._gradient)]
        a_nli, b_nlo = (part if part.ndim == 3 else part[:, None] for part in (self._x, self._gradient))
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
        self._wanted = trained_names(layer)
        self._weight, self._bias = values(layer.weight), None if layer.bias is None else values(layer.bias)
        self._flat = isinstance(layer, nn.Conv1d)
        self._kernel, self._stride, self._pad, self._dilation = (
            (neutral, int(size[0])) if self._flat else (int(size[0]), int(size[1]))
            for size, neutral in ((layer.kernel_size, 1), (layer.stride, 1), (layer.padding, 0), (layer.dilation, 1))
        )
        self._places = [(row, column) for row in range(self._kernel[0]) for column in range(self._kernel[1])]
        self._buffers: dict[str, Array] = {}

    def forward(self, *given: Array) -> Array:
        """[N, C, row, column] to [N, O, row', column']; without rows for one dimension."""
        x_nhwc = (given[0][:, :, None] if self._flat else given[0]).transpose(0, 2, 3, 1)
        windows, channels = len(x_nhwc), x_nhwc.shape[3]
        self._size = [have + 2 * pad for have, pad in zip(x_nhwc.shape[1:3], self._pad, strict=True)]
        self._out = [
            (have - (kernel - 1) * dilation - 1) // stride + 1
            for have, kernel, dilation, stride in zip(
                self._size, self._kernel, self._dilation, self._stride, strict=True
            )
        ]
        self._taps = self._slices()
        padded = self._buffer("padded", windows, (*self._size, channels))  # its border stays zero
        copy(self._inside(padded), x_nhwc)
        self._patches = self._buffer("patches", windows, (*self._out, *self._kernel, channels))
        if channels * (self._kernel[1] if self._dilation[1] == 1 else 1) >= SHORT_RUN:
            copy(self._patches, self._all_seen(padded))
        else:  # place by place along the image: short runs within a patch are slow
            places = self._buffer("places", len(self._places), (windows, *self._out, channels))
            for at in range(len(self._places)):
                copy(places[at], self._seen_at(padded, at))
            by_place = places.reshape(len(places), -1, channels).swapaxes(0, 1)
            copy(self._patches.reshape(by_place.shape), by_place)
        y = product(self._patches.reshape(-1, len(self._places) * channels), self._flat_weight().T)
        if self._bias is not None:
            torch.from_numpy(y).add_(torch.from_numpy(self._bias))
        y_nohw = y.reshape(windows, *self._out, -1).transpose(0, 3, 1, 2)
        return y_nohw[:, :, 0] if self._flat else y_nohw

    def backward(self, gradient: Array) -> Array:
        """[N, O, row', column'] to [N, C, row, column]."""
        outputs, channels = self._weight.shape[:2]
        self._gradient = np.ascontiguousarray(gradient.reshape(len(gradient), outputs, -1).swapaxes(1, 2))
        if not self.inward:
            return gradient
        seen = product(self._gradient.reshape(-1, outputs), self._flat_weight()).reshape(self._patches.shape)
        found = np.zeros((len(gradient), *self._size, channels))
        for at, (row, column) in enumerate(self._places):
            torch.from_numpy(self._seen_at(found, at)).add_(torch.from_numpy(seen[:, :, :, row, column]))
        x_nchw = self._inside(found).transpose(0, 3, 1, 2)
        return x_nchw[:, :, 0] if self._flat else x_nchw

    def units(self, sizes: Sizes) -> list[UnitGradients]:
        """Of weight and bias."""
        if not self._wanted:
            return []
        a_nli = self._patches.reshape(len(self._patches), -1, len(self._places) * self._patches.shape[-1])
        return [products(self._wanted, a_nli, self._gradient, sizes, places=len(self._places))]

    def _flat_weight(self) -> Array:
        """As the patches are: [O, K·C]."""
        outputs, inputs = self._weight.shape[:2]
        return self._weight.reshape(outputs, inputs, -1).swapaxes(1, 2).reshape(outputs, -1)

    def _buffer(self, name: str, first: int, rest: tuple[int, ...]) -> Array:
        held = self._buffers.get(name)
        if held is None or held.shape[1:] != rest or len(held) < first:
            held = np.zeros((first, *rest))
            self._buffers[name] = held
        return held[:first]

    def _inside(self, padded: Array) -> Array:
        (rows, columns), (above, left) = self._size, self._pad
        return padded[:, above : rows - above, left : columns - left]

    def _seen_at(self, padded: Array, place: int) -> Array:
        """What one place of the kernel sees: [N, row', column', C], a view."""
        down, across = self._taps[place]
        return padded[:, down, across]

    def _slices(self) -> list[tuple[slice, slice]]:
        """Rows and columns that each place of the kernel sees."""
        down, across = (
            [slice(at * dilation, at * dilation + (out - 1) * stride + 1, stride) for at in range(kernel)]
            for kernel, dilation, stride, out in zip(self._kernel, self._dilation, self._stride, self._out, strict=True)
        )
        return [(rows, columns) for rows in down for columns in across]

    def _all_seen(self, padded: Array) -> Array:
        """What every place of the kernel sees: [N, row', column', K, K', C], a view."""
        window, row, column, channel = padded.strides
        strides = (row * self._stride[0], column * self._stride[1], row * self._dilation[0], column * self._dilation[1])
        shape = (len(padded), *self._out, *self._kernel, padded.shape[-1])
        return np.ndarray(shape, padded.dtype, padded, strides=(window, *strides, channel))


class Normalised:
    """GroupNorm: its weight and bias act on each channel of what it normalised."""

    inward = True

    def __init__(self, layer: nn.GroupNorm) -> None:
        self.layers = (layer,)
        self._layer, self._wanted = layer, trained_names(layer)
        self._weight, self._bias = layer.weight.detach(), layer.bias.detach()

    def forward(self, *given: Array) -> Array:
        """[N, C, ...] to the same shape."""
        self._x = torch.from_numpy(np.ascontiguousarray(given[0]))
        windows, channels = self._x.shape[:2]
        self._sizes = windows, channels, self._x[0, 0].numel()
        layer = self._layer
        y, self._mean, self._rstd = torch.native_group_norm(
            self._x, self._weight, self._bias, *self._sizes, layer.num_groups, layer.eps
        )
        found: Array = y.numpy()
        return found

    def backward(self, gradient: Array) -> Array:
        """[N, C, ...] to the same shape."""
        self._gradient = torch.from_numpy(np.ascontiguousarray(gradient))
        if not self.inward:
            return gradient
        found: Array = torch.ops.aten.native_group_norm_backward.default(
            self._gradient, self._x, self._mean, self._rstd, self._weight, *self._sizes,
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
            parts.append(per_unit(each.flatten(2).sum(2).numpy(), sizes))
        return [Held(parts=parts)] if parts else []
