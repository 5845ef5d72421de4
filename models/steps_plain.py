"""Steps of a model that have no parameters, each with its gradient written out: activations, pooling, moving of data.

A step keeps what its way back needs until the next pass. `backward` gives the gradient with respect to what came in.
Formulas are torch's own kernels, so that infinities and NaN go where autograd would carry them.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

_aten = torch.ops.aten


class Step(Protocol):
    """One step of a forward pass and of its way back."""

    def forward(self, *given: Tensor) -> Tensor:
        """The step's answer."""
        ...

    def backward(self, gradient: Tensor) -> Tensor:
        """The loss's gradient with respect to each of what was given, from that of the answer."""
        ...


class Same:
    """What comes in goes out: an identity, or a sum of what came in."""

    def forward(self, *given: Tensor) -> Tensor:
        """Their sum."""
        return given[0] if len(given) == 1 else given[0] + given[1]

    def backward(self, gradient: Tensor) -> Tensor:
        """The same for each."""
        return gradient


class Tanh:
    """Hyperbolic tangent."""

    def forward(self, *given: Tensor) -> Tensor:
        """tanh(x)."""
        self._y = torch.tanh(given[0])
        return self._y

    def backward(self, gradient: Tensor) -> Tensor:
        """gradient·(1 - y²)."""
        found: Tensor = _aten.tanh_backward.default(gradient, self._y)
        return found


class Rectifier:
    """ReLU (slope 0) or leaky ReLU."""

    def __init__(self, slope: float) -> None:
        self._slope = slope

    def forward(self, *given: Tensor) -> Tensor:
        """x where above 0, slope·x elsewhere."""
        self._x = given[0]
        return functional.leaky_relu(given[0], self._slope) if self._slope else torch.relu(given[0])

    def backward(self, gradient: Tensor) -> Tensor:
        """The gradient where x is above 0, slope times it elsewhere."""
        found: Tensor
        if self._slope:
            found = _aten.leaky_relu_backward.default(gradient, self._x, self._slope, False)
        else:
            found = _aten.threshold_backward.default(gradient, self._x, 0)
        return found


class MeanOverTime:
    """[windows, channel, time] to its mean [windows, channel, 1]."""

    def forward(self, *given: Tensor) -> Tensor:
        """The mean."""
        self._shape = given[0].shape
        return given[0].mean(-1, keepdim=True)

    def backward(self, gradient: Tensor) -> Tensor:
        """An equal share for each time."""
        return (gradient / self._shape[-1]).expand(self._shape)


class MaxPool:
    """Largest value of each square of an image."""

    def __init__(self, size: int) -> None:
        self._size = [size, size]

    def forward(self, *given: Tensor) -> Tensor:
        """[windows, channel, row, column] to its maxima; rows and columns that do not fill a square are left out."""
        self._x = given[0]
        found, self._where = functional.max_pool2d(given[0], self._size, return_indices=True)
        return found

    def backward(self, gradient: Tensor) -> Tensor:
        """All of it to the largest."""
        size = self._size
        found: Tensor = _aten.max_pool2d_with_indices_backward.default(
            gradient, self._x, size, size, [0, 0], [1, 1], False, self._where
        )
        return found


class Stretch:
    """Nearest-neighbour resampling of the time axis to a fixed length."""

    def __init__(self, length: int) -> None:
        self._length = length

    def forward(self, *given: Tensor) -> Tensor:
        """[windows, channel, time] to [windows, channel, length]."""
        self._shape = list(given[0].shape)
        return functional.interpolate(given[0], size=self._length, mode="nearest")

    def backward(self, gradient: Tensor) -> Tensor:
        """Summed over the copies."""
        found: Tensor = _aten.upsample_nearest1d_backward.default(gradient, [self._length], self._shape)
        return found


class Reshape:
    """flatten, unflatten, unsqueeze: the same numbers in the same order."""

    def __init__(self, method: str, *arguments: Any) -> None:
        self._method, self._arguments = method, arguments

    def forward(self, *given: Tensor) -> Tensor:
        """In the new shape."""
        self._shape = given[0].shape
        found: Tensor = getattr(given[0], self._method)(*self._arguments)
        return found

    def backward(self, gradient: Tensor) -> Tensor:
        """In the old shape."""
        return gradient.reshape(self._shape)


class Transpose:
    """Two axes change places."""

    def __init__(self, first: int, second: int) -> None:
        self._axes = first, second

    def forward(self, *given: Tensor) -> Tensor:
        """With the axes exchanged."""
        return given[0].transpose(*self._axes)

    def backward(self, gradient: Tensor) -> Tensor:
        """And back."""
        return gradient.transpose(*self._axes)


class Select:
    """One index, or a slice."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def forward(self, *given: Tensor) -> Tensor:
        """The part."""
        self._shape = given[0].shape
        return given[0][self._index]

    def backward(self, gradient: Tensor) -> Tensor:
        """Zeros everywhere else."""
        found = gradient.new_zeros(self._shape)
        found[self._index] = gradient
        return found


class PadFront:
    """Zeros before the first time step."""

    def __init__(self, zeros: int) -> None:
        self._zeros = zeros

    def forward(self, *given: Tensor) -> Tensor:
        """[..., time] to [..., zeros + time]."""
        return functional.pad(given[0], (self._zeros, 0))

    def backward(self, gradient: Tensor) -> Tensor:
        """Without them."""
        return gradient[..., self._zeros :]
