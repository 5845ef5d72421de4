"""Dense layers for kernels: a batch at a time, the weights by rows of inputs, one for each output, then the biases.

A window's gradient is the outer product of what enters and the derivative of what leaves, so its norm follows from
those of both.
Source: ghost norms, Goodfellow 2015 (arXiv:1510.01799), section 4.

Shapes: `layer` [LAYER_COLUMNS], `values` [value, VALUE_COLUMNS] and flat vectors as in program.py.
"""

from __future__ import annotations

import numpy as np

from fedsite.simulations.vectorised.elementwise import add_to, kernel, squares
from fedsite.simulations.vectorised.products import product, row_products
from fedsite.simulations.vectorised.program import (
    DELTAS,
    HOP,
    KEEP,
    OFFSET,
    OUTPUTS,
    PLACE,
    ROWS,
    SIZE,
    SOURCE,
    TARGET,
    WIDE,
)  # fmt: skip

_ONE, _NONE = np.float32(1.0), np.float32(0.0)


@kernel
def dense_forward(layer, values, flat, rows, first, count):
    """What leaves for windows from `first`."""
    source, target, wide = values[layer[SOURCE]], values[layer[TARGET]], layer[WIDE]
    size, high, place = source[SIZE], target[SIZE], layer[PLACE]
    before, after = source[ROWS] + first * size + layer[OFFSET], target[ROWS] + first * high
    row_products(rows, before, size, flat, place, wide, rows, after, high, count, high, wide)
    bias = flat[place + high * wide : place + high * wide + high]
    for i in range(count):
        add_to(rows[after + i * high : after + (i + 1) * high], bias)


@kernel
def dense_backward(layer, values, flat, deltas, first, count):
    """The derivative at what enters."""
    source, target, wide = values[layer[SOURCE]], values[layer[TARGET]], layer[WIDE]
    size, high = source[SIZE], target[SIZE]
    after, before = target[DELTAS] + first * high, source[DELTAS] + first * size
    if wide < size and layer[KEEP] == 0:
        deltas[before : before + count * size] = _NONE
    product(
        deltas, after, high, 1,
        flat, layer[PLACE], wide,
        deltas, before + layer[OFFSET], size,
        count, wide, layer[OUTPUTS], _ONE, layer[KEEP],
    )  # fmt: skip


@kernel
def dense_push(layer, values, into, rows, deltas, count, alpha, add):
    """into ← alpha · (gradient), plus into where `add` is not 0; `into` may be the weights themselves."""
    source, target, wide, m = values[layer[SOURCE]], values[layer[TARGET]], layer[WIDE], layer[OUTPUTS]
    high, place, after = target[SIZE], layer[PLACE], target[DELTAS]
    before = source[ROWS] + layer[OFFSET]
    product(deltas, after, 1, high, rows, before, source[SIZE], into, place, wide, m, wide, count, alpha, add)
    bias = into[place + high * wide : place + high * wide + m]
    if not add:
        bias[:] = _NONE
    for i in range(count):
        line = deltas[after + i * high : after + i * high + m]
        for j in range(m):
            bias[j] += alpha * line[j]


@kernel
def dense_square(layer, values, rows, deltas, window):
    """The squared norm of one window's gradient."""
    source, target, wide = values[layer[SOURCE]], values[layer[TARGET]], layer[WIDE]
    a = source[ROWS] + window * source[SIZE] + layer[OFFSET]
    d = target[DELTAS] + window * target[HOP]
    return squares(deltas[d : d + target[SIZE]]) * (squares(rows[a : a + wide]) + _ONE)
