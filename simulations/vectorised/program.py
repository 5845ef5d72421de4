"""A model as a table that kernels walk: its layers, the values between them, and where each parameter lies.

Sizes are numbers in a table, not in code, so one compilation serves every model. A value is an image of rows, columns
and channels, channels side by side; a window of T steps is one row of T columns, a dense layer's answer one column.
Channels of all values but the input are filled up with zeros to whole vectors.

A layer of a new kind: a number here, its columns of the table, a class that lays it (builder.py), and a line in each
switch of layers.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
LANES: Final = 16  # float32 numbers of a vector

DENSE, CONVOLUTION, MAX_POOL, MEAN, STRETCH, ADD, RECURRENT = range(7)  # kinds of layers

# Columns of a layer. SOURCE, TARGET, OTHER: values read and written, OTHER a second one (what it reads, or keeps for
# itself). PLACE: of its weights. ACTIVATION: after it, −1 for none. KEEP, KEEP_OTHER: whether its derivative is added
# to that of others who read the same value. NEEDED: whether anybody wants it. READ, WRITE: where `tables` say
# which places of its source and of its target belong together. The rest is the kind's own.
KIND, SOURCE, TARGET, OTHER, PLACE, ACTIVATION, KEEP, KEEP_OTHER, NEEDED, READ, WRITE, FIRST_OWN = range(12)
LAYER_COLUMNS: Final = FIRST_OWN + 8
OFFSET, WIDE, OUTPUTS = range(FIRST_OWN, FIRST_OWN + 3)  # dense: reads WIDE numbers of its source from OFFSET
# Convolution: an output is a sum over SEGMENTS of DEPTH numbers side by side, JUMP apart. WEIGHTS: in `tables`, where
# the numbers of a sum lie. DOWN, RIGHT: from one output row, column to the next in the source. TURNED: of its weights
# with inputs along the vectors.
SEGMENTS, JUMP, DEPTH, WEIGHTS, DOWN, RIGHT, TURNED = range(FIRST_OWN, FIRST_OWN + 7)
TAPS, COUNT = FIRST_OWN, FIRST_OWN + 1  # pooling: in `tables`, where the COUNT numbers lie of which one is made
READ_OTHER = FIRST_OWN  # sum of two values
# Recurrent: WINDOWS is 1 where it reads windows, 0 for another's states; SCRATCH is a value for a moment.
STEPS, INPUTS, HIDDEN, WINDOWS, SCRATCH = range(FIRST_OWN, FIRST_OWN + 5)

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
    tables: Ints  # [number] read-only: 0, 1, 2, … first, then what layers ask for
    runs: Ints  # [run, 4]: compact number, padded place, count, distance of places
    size: int  # padded numbers
    turned: int  # numbers of all turned weights
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
