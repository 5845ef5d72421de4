"""Which kernel does a layer of which kind: forward, back to what enters, its gradient, one window's norm of it.

Layers before `prefix` are called for one window at a time (`first`, `count` 1), the others for a batch.
"""

from __future__ import annotations

import numpy as np

from fedsite.simulations.vectorised.dense_kernels import dense_backward, dense_forward, dense_push, dense_square
from fedsite.simulations.vectorised.elementwise import activate, derive, kernel, rescale
from fedsite.simulations.vectorised.program import (
    ACTIVATION,
    DELTAS,
    DENSE,
    HOP,
    KIND,
    NEEDED,
    ROWS,
    SIZE,
    TARGET,
)  # fmt: skip


@kernel
def forward(layer, values, flat, rows, first, count):
    """Fill the layer's value for `count` windows from `first`."""
    if layer[KIND] == DENSE:
        dense_forward(layer, values, flat, rows, first, count)
    if layer[ACTIVATION] >= 0:
        target = values[layer[TARGET]]
        at = target[ROWS] + first * target[SIZE]
        activate(layer[ACTIVATION], rows[at : at + count * target[SIZE]])


@kernel
def differentiate(layer, values, rows, deltas, first, count):
    """From the derivative at the layer's value to that before its activation."""
    if layer[ACTIVATION] >= 0:
        target = values[layer[TARGET]]
        a, d = target[ROWS] + first * target[SIZE], target[DELTAS] + first * target[HOP]
        size = count * target[SIZE]
        derive(layer[ACTIVATION], deltas[d : d + size], rows[a : a + size])


@kernel
def backward(layer, values, flat, rows, deltas, first, count):
    """The derivative at what the layer reads, from that before its activation; only where it is wanted."""
    if not layer[NEEDED]:
        return
    if layer[KIND] == DENSE:
        dense_backward(layer, values, flat, deltas, first, count)


@kernel
def push(layer, values, into, rows, deltas, first, count, alpha, add):
    """into ← alpha · (gradient of these windows), plus into where `add` is not 0."""
    if layer[KIND] == DENSE:
        dense_push(layer, values, into, rows, deltas, count, alpha, add)


@kernel
def square(layer, values, rows, deltas, window):
    """The squared norm of one window's gradient in a layer behind the prefix."""
    if layer[KIND] == DENSE:
        return dense_square(layer, values, rows, deltas, window)
    return np.float32(0.0)


@kernel
def scale(layer, values, deltas, window, factor):
    """Multiply one window's derivatives in a layer behind the prefix, and so its part of the gradient."""
    target = values[layer[TARGET]]
    at = target[DELTAS] + window * target[HOP]
    rescale(deltas[at : at + target[SIZE]], factor)
