"""What lies between layers: images of rows, columns and channels, the zeros around them, and what slides over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsite.simulations.vectorised.program import Ints, padded


@dataclass(slots=True, kw_only=True)
class Image:
    """A value: rows, columns and channels, with zeros around them."""

    height: int
    width: int
    channels: int
    stride: int  # numbers of a column
    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    @property
    def pitch(self) -> int:
        """Numbers of a row."""
        return (self.left + self.width + self.right) * self.stride

    @property
    def first(self) -> int:
        """The first number behind the border."""
        return self.top * self.pitch + self.left * self.stride

    @property
    def size(self) -> int:
        """Numbers that a window takes."""
        return padded((self.top + self.height + self.bottom) * self.pitch)

    def columns(self) -> Ints:
        """Where each column begins, [height, width]."""
        rows, columns = np.ix_(np.arange(self.height), np.arange(self.width))
        found: Ints = self.first + rows * self.pitch + columns * self.stride
        return found

    def numbers(self) -> Ints:
        """Where all numbers lie, in the order row, column, channel."""
        found: Ints = (self.columns()[..., None] + np.arange(self.channels)).reshape(-1)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Slide:
    """How a convolution, or a pool, slides over an image; each (down, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    before: tuple[int, int] = (0, 0)  # zeros above, and left
    after: tuple[int, int] = (0, 0)

    def output(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of what comes out."""
        found = []
        for axis in range(2):
            reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            found.append((size[axis] + self.before[axis] + self.after[axis] - reach) // self.stride[axis] + 1)
        return found[0], found[1]

    def corners(self, image: Image, size: tuple[int, int]) -> Ints:
        """Where the kernel's first number lies in the image, for each of `size` outputs."""
        rows, columns = np.ix_(*(np.arange(size[axis]) * self.stride[axis] - self.before[axis] for axis in range(2)))
        found: Ints = image.first + rows * image.pitch + columns * image.stride
        return found
