"""Which kernel does a layer of which kind: forward, back to what enters, its gradient, one window's norm of it.

Layers before the program's `prefix` are called for one window at a time (`first`, `count` 1), the others for a batch.
"""

from __future__ import annotations

import numpy as np

from fedsite.simulations.vectorised.convolution_kernels import (
    convolution_backward,
    convolution_forward,
    convolution_push,
    turn,
)
from fedsite.simulations.vectorised.dense_kernels import dense_backward, dense_forward, dense_push, dense_square
from fedsite.simulations.vectorised.elementwise import activate, derive, kernel, rescale
from fedsite.simulations.vectorised.pooling_kernels import (
    clear_back,
    max_backward,
    max_forward,
    mean_backward,
    mean_forward,
    stretch_backward,
    stretch_forward,
    sum_backward,
    sum_forward,
)
from fedsite.simulations.vectorised.program import (
    ACTIVATION,
    ADD,
    CONVOLUTION,
    DELTAS,
    DENSE,
    HOP,
    KIND,
    MAX_POOL,
    MEAN,
    NEEDED,
    RECURRENT,
    ROWS,
    SIZE,
    STRETCH,
    TARGET,
)  # fmt: skip
from fedsite.simulations.vectorised.recurrent_layer import (
    recurrent_backward,
    recurrent_differentiate,
    recurrent_forward,
    recurrent_push,
    recurrent_scale,
    recurrent_square,
)


@kernel
def prepare(layer, values, flat, turned):
    """Once a step: what the way back wants of the weights."""
    if layer[KIND] == CONVOLUTION and layer[NEEDED]:
        turn(layer, values, flat, turned)


@kernel
def forward(layer, values, tables, flat, rows, first, count):
    """Fill the layer's value for `count` windows from `first`."""
    kind = layer[KIND]
    if kind == DENSE:
        dense_forward(layer, values, flat, rows, first, count)
    elif kind == CONVOLUTION:
        convolution_forward(layer, values, tables, flat, rows, first)
    elif kind == MAX_POOL:
        max_forward(layer, values, tables, rows, first)
    elif kind == MEAN:
        mean_forward(layer, values, tables, rows, first)
    elif kind == STRETCH:
        stretch_forward(layer, values, tables, rows, first)
    elif kind == ADD:
        sum_forward(layer, values, tables, rows, first)
    elif kind == RECURRENT:
        recurrent_forward(layer, values, flat, rows, count)
    if layer[ACTIVATION] >= 0:
        target = values[layer[TARGET]]
        at = target[ROWS] + first * target[SIZE]
        activate(layer[ACTIVATION], rows[at : at + count * target[SIZE]])


@kernel
def differentiate(layer, values, flat, rows, deltas, first, count):
    """From the derivative at the layer's value to that before its activation, or back through time."""
    if layer[KIND] == RECURRENT:
        recurrent_differentiate(layer, values, flat, rows, deltas, count)
    if layer[ACTIVATION] >= 0:
        target = values[layer[TARGET]]
        a, d = target[ROWS] + first * target[SIZE], target[DELTAS] + first * target[HOP]
        size = count * target[SIZE]
        derive(layer[ACTIVATION], deltas[d : d + size], rows[a : a + size])


@kernel
def backward(layer, values, tables, flat, turned, rows, deltas, first, count):
    """The derivative at what the layer reads, from that before its activation; only where it is wanted."""
    kind = layer[KIND]
    if not layer[NEEDED]:
        return
    if kind == DENSE:
        dense_backward(layer, values, flat, deltas, first, count)
        return
    if kind == CONVOLUTION:
        convolution_backward(layer, values, tables, turned, deltas, first)
        return
    if kind == RECURRENT:
        recurrent_backward(layer, values, flat, rows, deltas, count)
        return
    clear_back(layer, values, deltas, first)
    if kind == MAX_POOL:
        max_backward(layer, values, tables, rows, deltas, first)
    elif kind == MEAN:
        mean_backward(layer, values, tables, deltas, first)
    elif kind == STRETCH:
        stretch_backward(layer, values, tables, deltas, first)
    elif kind == ADD:
        sum_backward(layer, values, tables, deltas, first)


@kernel
def push(layer, values, tables, into, rows, deltas, first, count, alpha, add):
    """into ← alpha · (gradient of these windows), plus into where `add` is not 0; one window's is always added."""
    if layer[KIND] == DENSE:
        dense_push(layer, values, into, rows, deltas, count, alpha, add)
    elif layer[KIND] == CONVOLUTION:
        convolution_push(layer, values, tables, into, rows, deltas, first, alpha)
    elif layer[KIND] == RECURRENT:
        recurrent_push(layer, values, into, rows, count, alpha, add)


@kernel
def square(layer, values, rows, deltas, window, count):
    """The squared norm of the gradient of one window of `count`, in a layer behind the prefix."""
    if layer[KIND] == DENSE:
        return dense_square(layer, values, rows, deltas, window)
    if layer[KIND] == RECURRENT:
        return recurrent_square(layer, values, rows, window, count)
    return np.float32(0.0)


@kernel
def scale(layer, values, rows, deltas, window, count, factor):
    """Multiply the derivatives of one window of `count` in a layer behind the prefix, so its part of the gradient."""
    if layer[KIND] == RECURRENT:
        recurrent_scale(layer, values, rows, window, count, factor)
        return
    target = values[layer[TARGET]]
    at = target[DELTAS] + window * target[HOP]
    rescale(deltas[at : at + target[SIZE]], factor)
