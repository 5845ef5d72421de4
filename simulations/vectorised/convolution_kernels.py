"""Convolutions for kernels, one window at a time: products whose rows lie where the window's columns lie, no patches.

The numbers under a kernel lie in a few segments side by side, since channels do; a tile walks along these segments in
the image itself. The way back adds to overlapping places in order. Weights: a row of outputs for each number under the
kernel, then the biases.

Shapes: `layer` [LAYER_COLUMNS], `values` [value, VALUE_COLUMNS], `tables` and flat vectors as in program.py.
"""

from __future__ import annotations

import numpy as np

from fedsite.simulations.vectorised.elementwise import kernel
from fedsite.simulations.vectorised.products import add_sums, scattered_product
from fedsite.simulations.vectorised.program import (
    DELTAS,
    DEPTH,
    DOWN,
    HEIGHT,
    HOP,
    JUMP,
    KEEP,
    PITCH,
    PLACE,
    READ,
    RIGHT,
    ROWS,
    SEGMENTS,
    SIZE,
    SOURCE,
    STRIDE,
    TARGET,
    TURNED,
    WEIGHTS,
    WIDTH,
    WRITE,
)  # fmt: skip

_ONE, _NONE = np.float32(1.0), np.float32(0.0)


@kernel
def turn(layer, values, flat, turned):
    """Fill `turned` with the layer's weights, inputs along the vectors."""
    line, size = values[layer[TARGET], STRIDE], layer[SEGMENTS] * layer[DEPTH]
    for output in range(line):
        into = turned[layer[TURNED] + output * size : layer[TURNED] + (output + 1) * size]
        of = flat[layer[PLACE] + output :]
        for i in range(size):
            into[i] = of[i * line]


@kernel
def convolution_forward(layer, values, tables, flat, rows, window):
    """What leaves."""
    source, target = values[layer[SOURCE]], values[layer[TARGET]]
    before, after = source[ROWS] + window * source[SIZE], target[ROWS] + window * target[SIZE]
    line, depth, place = target[STRIDE], layer[DEPTH], layer[PLACE]
    scattered_product(
        rows, before, 1, layer[JUMP], flat, place, line, line * depth, rows, after, 1,
        flat, place + layer[SEGMENTS] * depth * line, 0, target[HEIGHT] * target[WIDTH], line,
        tables, layer[READ], layer[WRITE], layer[SEGMENTS], depth, _ONE, 1,
    )  # fmt: skip


@kernel
def convolution_backward(layer, values, tables, turned, deltas, window):
    """The derivative at what enters."""
    source, target = values[layer[SOURCE]], values[layer[TARGET]]
    before, after = source[DELTAS] + window * source[HOP], target[DELTAS] + window * target[HOP]
    size = layer[SEGMENTS] * layer[DEPTH]
    if layer[KEEP] == 0:
        deltas[before : before + source[SIZE]] = _NONE
    for segment in range(layer[SEGMENTS]):
        into = before + segment * layer[JUMP]
        scattered_product(
            deltas, after, 1, 0, turned, layer[TURNED] + segment * layer[DEPTH], size, 0, deltas, into, 1,
            deltas, into, 1, target[HEIGHT] * target[WIDTH], layer[DEPTH],
            tables, layer[WRITE], layer[READ], 1, target[STRIDE], _ONE, 1,
        )  # fmt: skip


@kernel
def convolution_push(layer, values, tables, into, rows, deltas, window, alpha):
    """into += alpha · (gradient of one window)."""
    source, target = values[layer[SOURCE]], values[layer[TARGET]]
    before = source[ROWS] + window * source[SIZE] + tables[layer[READ]]
    after = target[DELTAS] + window * target[HOP] + tables[layer[WRITE]]
    line, place, size = target[STRIDE], layer[PLACE], layer[SEGMENTS] * layer[DEPTH]
    scattered_product(
        rows, before, layer[RIGHT], layer[DOWN], deltas, after, line, target[PITCH], into, place, line,
        into, place, line, size, line, tables, layer[WEIGHTS], 0, target[HEIGHT], target[WIDTH], alpha, 1,
    )  # fmt: skip
    bias = place + size * line
    add_sums(deltas, after, line, target[PITCH], into, bias, line, target[HEIGHT], target[WIDTH], alpha)
