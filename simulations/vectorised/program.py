"""A model as a table that kernels walk: its layers, the values between them, and where each parameter lies.

Sizes are numbers in a table, not in code, so one compilation serves every model. A value is an image of rows, columns
and channels, channels side by side; a window of T steps is one row of T columns, a dense layer's answer one column.
Channels of all values but the input are filled up with zeros to whole vectors.

A layer of a new kind: a number here, its columns of the table, a method of `Builder`, and a line in each switch of
layers.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
LANES: Final = 16  # float32 numbers of a vector

DENSE, CONVOLUTION, MAX_POOL, MEAN, STRETCH, ADD, RECURRENT = range(7)  # kinds of layers

# Columns of a layer. SOURCE, TARGET, OTHER: values read and written, OTHER a second one (what it reads, or keeps for
# itself). PLACE: of its weights. ACTIVATION: after it, −1 for none. KEEP: whether its derivative is added to that of
# others who read the same value. NEEDED: whether anybody wants it. The rest is the kind's own.
KIND, SOURCE, TARGET, OTHER, PLACE, ACTIVATION, KEEP, NEEDED, FIRST_OWN = range(9)
LAYER_COLUMNS: Final = FIRST_OWN + 12
OFFSET, WIDE, OUTPUTS = range(FIRST_OWN, FIRST_OWN + 3)  # dense: reads WIDE numbers of its source from OFFSET

# Columns of a value. SIZE: numbers that a window takes. FIRST: its first number behind the border. PITCH, STRIDE: from
# one image row, one column to the next. ROWS, DELTAS: where it begins among values and derivatives of a chunk;
# HOP: from one window's derivatives to the next's, 0 where windows go back one after the other.
SIZE, FIRST, PITCH, STRIDE, HEIGHT, WIDTH, CHANNELS, ROWS, DELTAS, HOP = range(10)
VALUE_COLUMNS: Final = 10


def padded(size: int) -> int:
    """The next multiple of LANES."""
    return -(-size // LANES) * LANES


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What kernels are given of a model."""

    table: Ints  # [layer, LAYER_COLUMNS]
    values: Ints  # [value, VALUE_COLUMNS]; the first is the input, the last the model's answer
    runs: Ints  # [run, 4]: compact number, padded place, count, distance of places
    size: int  # padded numbers
    prefix: int  # layers at the beginning that take one window after the other

    def spread(self, width: int) -> tuple[Ints, int, int]:
        """The values with their places for batches of `width` windows; numbers of all values, of all derivatives."""
        values = self.values.copy()
        inside = set(self.table[: self.prefix, TARGET].tolist()) - set(self.table[self.prefix :, SOURCE].tolist())
        inside -= {len(values) - 1}
        rows = deltas = 0
        for number, value in enumerate(values):
            value[ROWS], value[DELTAS] = rows, deltas
            value[HOP] = 0 if number in inside else value[SIZE]
            rows += value[SIZE] * width
            deltas += value[SIZE] * (1 if number in inside else width)
        return values, rows, deltas


@dataclass(slots=True)
class Builder:
    """Layer by layer to a program; values are called by number, 0 is the input."""

    values: list[list[int]] = field(default_factory=list)
    layers: list[list[int]] = field(default_factory=list)
    places: list[Ints] = field(default_factory=list)
    size: int = 0

    def value(self, height: int, width: int, channels: int) -> int:
        """An image of so many numbers."""
        stride = padded(channels) if self.values else channels
        numbers = padded(height * width * stride)
        self.values.append([numbers, 0, width * stride, stride, height, width, channels, 0, 0, 0])
        return len(self.values) - 1

    def numbers(self, value: int) -> Ints:
        """Where the numbers of a value lie in it, [height, width, channels]."""
        of = self.values[value]
        rows, columns, channels = np.ix_(*(np.arange(of[column]) for column in (HEIGHT, WIDTH, CHANNELS)))
        found: Ints = of[FIRST] + rows * of[PITCH] + columns * of[STRIDE] + channels
        return found

    def dense(self, source: int, inputs: Ints, outputs: int, *, columns: int = 1) -> int:
        """A linear layer; `inputs` says where in the source each of its inputs lies, in the order of its weights."""
        offset = int(inputs.min()) // LANES * LANES
        wide, high = padded(int(inputs.max()) + 1 - offset), padded(outputs)
        target = self.value(1, 1, outputs)
        rows = np.arange(outputs)[:, None] * wide
        self._layer(DENSE, source, target, [offset, wide, outputs])
        self._weights([rows + (inputs - offset), high * wide + np.arange(outputs)], high * (wide + 1))
        return target

    def activation(self, kind: int) -> None:
        """After the layer that was added last."""
        self.layers[-1][ACTIVATION] = kind

    def program(self) -> Program:
        """All of it."""
        table = np.array([[*layer, *[0] * (LAYER_COLUMNS - len(layer))] for layer in self.layers], np.int64)
        later: set[int] = set()
        for layer in table[::-1]:  # as derivatives are computed: who comes first sets, the others add
            layer[NEEDED] = layer[SOURCE] > 0
            layer[KEEP] = int(layer[SOURCE]) in later
            later.add(int(layer[SOURCE]))
        single = table[:, KIND] != DENSE
        batch = np.flatnonzero(~single)
        prefix = int(batch[0]) if len(batch) else len(table)
        return Program(
            table=table,
            values=np.array(self.values, np.int64),
            runs=_runs(self.places),
            size=self.size,
            prefix=prefix,
        )

    def _layer(self, kind: int, source: int, target: int, own: list[int], other: int = -1) -> None:
        self.layers.append([kind, source, target, other, self.size, -1, 0, 0, *own])

    def _weights(self, places: list[Ints], size: int) -> None:
        """Where parameters lie from here on, in the model's order; they take `size` numbers."""
        self.places += [self.size + place.reshape(-1) for place in places]
        self.size += size


def _runs(places: list[Ints]) -> Ints:
    """Places of numbers as few as possible runs of equal distance."""
    found, start = [], 0
    for part in places:
        gaps = np.diff(part)
        ends = [*(np.flatnonzero(np.diff(gaps)) + 1).tolist(), len(gaps)]
        at = 0
        for end in ends:
            if end < at:
                continue
            found.append((start + at, int(part[at]), end - at + 1, int(gaps[at]) if end > at else 1))
            at = end + 1
        if at < len(part):
            found.append((start + at, int(part[at]), 1, 1))
        start += len(part)
    return np.array(found, np.int64).reshape(-1, 4)
