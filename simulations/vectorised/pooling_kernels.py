"""What lies between convolutions, one window at a time: maxima of squares, means, stretched columns, sums of values.

Shapes: `layer` [LAYER_COLUMNS], `values` [value, VALUE_COLUMNS], `tables` and flat vectors as in program.py.
"""

from __future__ import annotations

import numpy as np

from fedsite.simulations.vectorised.elementwise import add_scaled, add_to, kernel
from fedsite.simulations.vectorised.pool_tiles import hand_back, largest
from fedsite.simulations.vectorised.program import (
    COUNT,
    DELTAS,
    HEIGHT,
    HOP,
    KEEP,
    KEEP_OTHER,
    NEEDED,
    OTHER,
    READ,
    READ_OTHER,
    ROWS,
    SIZE,
    SOURCE,
    STRIDE,
    TAPS,
    TARGET,
    WIDTH,
    WRITE,
)  # fmt: skip
from fedsite.simulations.vectorised.tiles import LANES, address

_ONE, _NONE = np.float32(1.0), np.float32(0.0)


@kernel
def max_forward(layer, values, tables, rows, window):
    """The largest of each square."""
    source, target = values[layer[SOURCE]], values[layer[TARGET]]
    before, after = source[ROWS] + window * source[SIZE], target[ROWS] + window * target[SIZE]
    taps, count = address(tables, layer[TAPS]), layer[COUNT]
    for place in range(target[HEIGHT] * target[WIDTH]):
        of, to = before + tables[layer[READ] + place], after + tables[layer[WRITE] + place]
        for channel in range(0, source[STRIDE], LANES):
            largest(address(rows, of + channel), taps, count, address(rows, to + channel))


@kernel
def max_backward(layer, values, tables, rows, deltas, window):
    """All of a derivative to the first of the largest."""
    source, target = values[layer[SOURCE]], values[layer[TARGET]]
    before, after = source[ROWS] + window * source[SIZE], target[ROWS] + window * target[SIZE]
    back, over = source[DELTAS] + window * source[HOP], target[DELTAS] + window * target[HOP]
    taps, count = address(tables, layer[TAPS]), layer[COUNT]
    for place in range(target[HEIGHT] * target[WIDTH]):
        of, to = tables[layer[READ] + place], tables[layer[WRITE] + place]
        for channel in range(0, source[STRIDE], LANES):
            hand_back(
                address(rows, before + of + channel),
                taps,
                count,
                address(rows, after + to + channel),
                address(deltas, over + to + channel),
                address(deltas, back + of + channel),
            )


@kernel
def mean_forward(layer, values, tables, rows, window):
    """Of all columns."""
    source, target = values[layer[SOURCE]], values[layer[TARGET]]
    before, to = source[ROWS] + window * source[SIZE], target[ROWS] + window * target[SIZE] + tables[layer[WRITE]]
    into = rows[to : to + source[STRIDE]]
    into[:] = _NONE
    for place in range(layer[COUNT]):
        of = before + tables[layer[READ] + place]
        add_scaled(into, rows[of : of + source[STRIDE]], _ONE / np.float32(layer[COUNT]))


@kernel
def mean_backward(layer, values, tables, deltas, window):
    """An equal share for each."""
    source, target = values[layer[SOURCE]], values[layer[TARGET]]
    back, of = source[DELTAS] + window * source[HOP], target[DELTAS] + window * target[HOP] + tables[layer[WRITE]]
    for place in range(layer[COUNT]):
        at = back + tables[layer[READ] + place]
        share = _ONE / np.float32(layer[COUNT])
        add_scaled(deltas[at : at + source[STRIDE]], deltas[of : of + source[STRIDE]], share)


@kernel
def stretch_forward(layer, values, tables, rows, window):
    """Columns of the source, some of them several times."""
    source, target = values[layer[SOURCE]], values[layer[TARGET]]
    before, after = source[ROWS] + window * source[SIZE], target[ROWS] + window * target[SIZE]
    for place in range(layer[COUNT]):
        of, to = before + tables[layer[READ] + place], after + tables[layer[WRITE] + place]
        into = rows[to : to + source[STRIDE]]
        into[:] = rows[of : of + source[STRIDE]]


@kernel
def stretch_backward(layer, values, tables, deltas, window):
    """Summed over the copies."""
    source, target = values[layer[SOURCE]], values[layer[TARGET]]
    back, over = source[DELTAS] + window * source[HOP], target[DELTAS] + window * target[HOP]
    for place in range(layer[COUNT]):
        at, of = back + tables[layer[READ] + place], over + tables[layer[WRITE] + place]
        add_to(deltas[at : at + source[STRIDE]], deltas[of : of + source[STRIDE]])


@kernel
def sum_forward(layer, values, tables, rows, window):
    """One value and another."""
    source, other, target = values[layer[SOURCE]], values[layer[OTHER]], values[layer[TARGET]]
    one, two = source[ROWS] + window * source[SIZE], other[ROWS] + window * other[SIZE]
    after, line = target[ROWS] + window * target[SIZE], target[STRIDE]
    for place in range(target[HEIGHT] * target[WIDTH]):
        of, second = one + tables[layer[READ] + place], two + tables[layer[READ_OTHER] + place]
        to = after + tables[layer[WRITE] + place]
        into = rows[to : to + line]
        into[:] = rows[of : of + line]
        add_to(into, rows[second : second + line])


@kernel
def sum_backward(layer, values, tables, deltas, window):
    """The same for each."""
    source, other, target = values[layer[SOURCE]], values[layer[OTHER]], values[layer[TARGET]]
    over, line = target[DELTAS] + window * target[HOP], target[STRIDE]
    for place in range(target[HEIGHT] * target[WIDTH]):
        of = over + tables[layer[WRITE] + place]
        one = source[DELTAS] + window * source[HOP] + tables[layer[READ] + place]
        two = other[DELTAS] + window * other[HOP] + tables[layer[READ_OTHER] + place]
        add_to(deltas[one : one + line], deltas[of : of + line])
        add_to(deltas[two : two + line], deltas[of : of + line])


@kernel
def clear_back(layer, values, deltas, window):
    """Derivatives that this layer is the first to write ← 0."""
    source, other = values[layer[SOURCE]], values[layer[OTHER]]
    if layer[NEEDED] and layer[KEEP] == 0:
        at = source[DELTAS] + window * source[HOP]
        deltas[at : at + source[SIZE]] = _NONE
    if layer[OTHER] >= 0 and layer[KEEP_OTHER] == 0:
        at = other[DELTAS] + window * other[HOP]
        deltas[at : at + other[SIZE]] = _NONE
