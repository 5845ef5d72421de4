"""Steps of a model that have no parameters, each with its gradient written out: activations, pooling, moving of data.

A step keeps what its way back needs until the next pass. `backward` gives the gradient with respect to what came in.
Arrays are NumPy's, whose small operations start several times sooner than torch's; torch's kernels are called where
NumPy has none. Infinities and NaN go where autograd would carry them.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Array = NDArray[np.float64]
_aten = torch.ops.aten


class Step(Protocol):
    """One step of a forward pass and of its way back."""

    def forward(self, *given: Array) -> Array:
        """The step's answer."""
        ...

    def backward(self, gradient: Array) -> Array:
        """The loss's gradient with respect to each of what was given, from that of the answer."""
        ...


class Same:
    """What comes in goes out: an identity, or a sum of what came in."""

    def forward(self, *given: Array) -> Array:
        """Their sum."""
        return given[0] if len(given) == 1 else given[0] + given[1]

    def backward(self, gradient: Array) -> Array:
        """The same for each."""
        return gradient


class Tanh:
    """Hyperbolic tangent."""

    def forward(self, *given: Array) -> Array:
        """tanh(x)."""
        self._y: Array = np.tanh(given[0])
        return self._y

    def backward(self, gradient: Array) -> Array:
        """gradient·(1 - y²)."""
        found: Array = gradient * (1.0 - self._y * self._y)
        return found


class Rectifier:
    """ReLU (slope 0) or leaky ReLU."""

    def __init__(self, slope: float) -> None:
        self._slope = slope

    def forward(self, *given: Array) -> Array:
        """x where above 0, slope·x elsewhere."""
        self._x = torch.from_numpy(given[0])
        answer = functional.leaky_relu(self._x, self._slope) if self._slope else torch.relu(self._x)
        found: Array = answer.numpy()
        return found

    def backward(self, gradient: Array) -> Array:
        """The gradient where x is above 0, slope times it elsewhere."""
        back = torch.from_numpy(gradient)
        if self._slope:
            answer = _aten.leaky_relu_backward.default(back, self._x, self._slope, False)
        else:
            answer = _aten.threshold_backward.default(back, self._x, 0)
        found: Array = answer.numpy()
        return found


class MeanOverTime:
    """[windows, channel, time] to its mean [windows, channel, 1]."""

    def forward(self, *given: Array) -> Array:
        """The mean."""
        self._shape = given[0].shape
        found: Array = given[0].mean(-1, keepdims=True)
        return found

    def backward(self, gradient: Array) -> Array:
        """An equal share for each time."""
        return np.repeat(gradient / self._shape[-1], self._shape[-1], axis=-1)


class MaxPool:
    """Largest value of each square of an image."""

    def __init__(self, size: int) -> None:
        self._size = [size, size]

    def forward(self, *given: Array) -> Array:
        """[windows, channel, row, column] to its maxima; rows and columns that do not fill a square are left out."""
        self._x = torch.from_numpy(given[0])
        answer, self._where = functional.max_pool2d(self._x, self._size, return_indices=True)
        found: Array = answer.numpy()
        return found

    def backward(self, gradient: Array) -> Array:
        """All of it to the largest."""
        size = self._size
        found: Array = _aten.max_pool2d_with_indices_backward.default(
            torch.from_numpy(gradient), self._x, size, size, [0, 0], [1, 1], False, self._where
        ).numpy()
        return found


class Stretch:
    """Nearest-neighbour resampling of the time axis to a fixed length."""

    def __init__(self, length: int) -> None:
        self._length = length

    def forward(self, *given: Array) -> Array:
        """[windows, channel, time] to [windows, channel, length]."""
        self._shape = list(given[0].shape)
        found: Array = functional.interpolate(torch.from_numpy(given[0]), size=self._length, mode="nearest").numpy()
        return found

    def backward(self, gradient: Array) -> Array:
        """Summed over the copies."""
        found: Array = _aten.upsample_nearest1d_backward.default(
            torch.from_numpy(gradient), [self._length], self._shape
        ).numpy()
        return found


class Reshape:
    """flatten, unflatten, unsqueeze of the axis after the windows: the same numbers in the same order."""

    def __init__(self, *shape: int) -> None:
        self._new = shape

    def forward(self, *given: Array) -> Array:
        """In the new shape."""
        self._shape = given[0].shape
        return given[0].reshape(len(given[0]), *self._new)

    def backward(self, gradient: Array) -> Array:
        """In the old shape."""
        return gradient.reshape(self._shape)


class Unsqueeze:
    """A new axis of length one after the windows."""

    def forward(self, *given: Array) -> Array:
        """[windows, ...] to [windows, 1, ...]."""
        return given[0][:, None]

    def backward(self, gradient: Array) -> Array:
        """Without it."""
        return gradient[:, 0]


class Transpose:
    """Two axes change places."""

    def __init__(self, first: int, second: int) -> None:
        self._axes = first, second

    def forward(self, *given: Array) -> Array:
        """With the axes exchanged."""
        return given[0].swapaxes(*self._axes)

    def backward(self, gradient: Array) -> Array:
        """And back."""
        return gradient.swapaxes(*self._axes)


class Select:
    """One index, or a slice."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def forward(self, *given: Array) -> Array:
        """The part."""
        self._shape = given[0].shape
        found: Array = given[0][self._index]
        return found

    def backward(self, gradient: Array) -> Array:
        """Zeros everywhere else."""
        found = np.zeros(self._shape)
        found[self._index] = gradient
        return found


class PadFront:
    """Zeros before the first time step."""

    def __init__(self, zeros: int) -> None:
        self._zeros = zeros

    def forward(self, *given: Array) -> Array:
        """[..., time] to [..., zeros + time]."""
        *before, time = given[0].shape
        found = np.zeros((*before, self._zeros + time))
        found[..., self._zeros :] = given[0]
        return found

    def backward(self, gradient: Array) -> Array:
        """Without them."""
        return gradient[..., self._zeros :]
