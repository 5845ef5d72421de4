"""Local training of dense stacks as one compiled function: DP-SGD, momentum, FedProx; one site after the other.

A site's weights stay in the processor's cache. Every row of a flat vector starts on a multiple of LANES: zeros fill the
gaps, and whole rows up to such a multiple, and stay zeros. Sizes are values: one compilation serves all models.

Shapes: C sites, S steps, B windows, L layers; layer l takes `sizes[l]` numbers to `sizes[l + 1]`. `flat`, `gradient`,
`moment`, `start` [padded]: for each layer its rows of weights and one of biases.
"""

from __future__ import annotations

import numpy as np

from fedsite.simulations.vectorised.elementwise import (
    activate,
    add_to,
    add_update,
    derive,
    descend,
    draw_noise,
    kernel,
    rescale,
    slope,
    squares,
)
from fedsite.simulations.vectorised.tiles import LANES, product, row_products

_ONE, _NONE = np.float32(1.0), np.float32(0.0)


@kernel
def padded(size):
    """The next multiple of LANES."""
    return (size + LANES - 1) // LANES * LANES


@kernel
def add_rows(sizes, compact, flat, outward):
    """flat [padded] += compact [parameters] row by row where `outward`, else compact += flat."""
    c = f = 0
    for layer in range(sizes.size - 1):
        m = sizes[layer + 1]
        for row in range(m + 1):
            n = sizes[layer] if row < m else m  # the last row is the biases
            if outward:
                add_to(flat[f : f + n], compact[c : c + n])
            else:
                add_to(compact[c : c + n], flat[f : f + n])
            c += n
            f += padded(n)
            if row == m - 1:
                f += (padded(m) - m) * padded(n)


@kernel
def forward(flat, places, rows, sizes, starts, activation, b):
    """Fill `rows` behind the windows themselves with what enters each layer, and with the output."""
    for layer in range(sizes.size - 1):
        wide, high = padded(sizes[layer]), padded(sizes[layer + 1])
        before, after = starts[layer], starts[layer + 1]
        row_products(rows, before, wide, flat, places[layer], wide, rows, after, high, b, high, wide)
        bias = flat[places[layer] + high * wide : places[layer] + high * wide + high]
        for i in range(b):
            add_to(rows[after + i * high : after + (i + 1) * high], bias)
        if layer < sizes.size - 2:
            activate(activation, rows[after : after + b * high])


@kernel
def clip_windows(rows, deltas, sizes, starts, b, bound):
    """Scale each window's derivatives so that its gradient's norm is at most `bound`; ghost norms."""
    for i in range(b):
        square = _NONE
        for layer in range(sizes.size - 1):
            a = starts[layer] + i * padded(sizes[layer])
            d = starts[layer + 1] + i * padded(sizes[layer + 1])
            square += squares(deltas[d : d + sizes[layer + 1]]) * (squares(rows[a : a + sizes[layer]]) + _ONE)
        norm = np.sqrt(square)
        factor = bound / max(norm, bound) if norm < np.inf else _NONE
        for layer in range(1, sizes.size):
            d = starts[layer] + i * padded(sizes[layer])
            rescale(deltas[d : d + sizes[layer]], factor)


@kernel
def back(flat, places, rows, deltas, sizes, starts, activation, layer, b):
    """The derivative at the input of a layer, times that of the activation before it."""
    n, m = sizes[layer], sizes[layer + 1]
    wide = padded(n)
    product(
        deltas,
        starts[layer + 1],
        padded(m),
        1,
        flat,
        places[layer],
        wide,
        deltas,
        starts[layer],
        wide,
        b,
        wide,
        m,
        _ONE,
        0,
    )
    end = starts[layer] + b * wide
    derive(activation, deltas[starts[layer] : end], rows[starts[layer] : end])


@kernel
def push(into, places, rows, deltas, sizes, starts, layer, b, alpha, add):
    """into ← alpha · (gradient of a layer), plus into where `add` is not 0; `into` may be the weights themselves."""
    n, m = sizes[layer], sizes[layer + 1]
    wide, high = padded(n), padded(m)
    product(
        deltas, starts[layer + 1], 1, high, rows, starts[layer], wide, into, places[layer], wide, m, wide, b, alpha, add
    )
    bias = into[places[layer] + high * wide : places[layer] + high * wide + m]
    if not add:
        bias[:] = _NONE
    for i in range(b):
        line = deltas[starts[layer + 1] + i * high : starts[layer + 1] + i * high + m]
        for j in range(m):
            bias[j] += alpha * line[j]


@kernel
def train_chunk(
    batches, counts, steps, x, wanted, classes, begin, sizes, activation, loss, optimizer, private, keys, weights, total
):
    """Train C sites from `begin` [parameters] and add their weighted updates to `total`; returns numbers off the grid.

    `optimizer`: rate, momentum, decay, proximal. `private`: clipping norm or 0, the noise's deviation, divisor.
    """
    rate, momentum, decay, proximal = optimizer
    bound, deviation, divisor = private
    plain = bound == 0 and momentum == 0 and decay == 0 and proximal == 0
    width, layers = batches.shape[2], sizes.size - 1
    starts, places = np.zeros(layers + 2, np.int64), np.zeros(layers + 1, np.int64)
    for layer in range(layers + 1):
        starts[layer + 1] = starts[layer] + width * padded(sizes[layer])
        if layer < layers:
            places[layer + 1] = places[layer] + padded(sizes[layer + 1]) * (padded(sizes[layer]) + 1)
    rows, deltas = np.zeros(starts[-1], np.float32), np.zeros(starts[-1], np.float32)
    start = np.zeros(places[-1], np.float32)
    add_rows(sizes, begin, start, True)
    flat, gradient, moment = start.copy(), np.zeros_like(start), np.zeros_like(start)
    summed = np.zeros(places[-1], np.int64)
    noise = np.empty(begin.size if bound > 0 else 0, np.float32)
    lost = 0
    for c in range(batches.shape[0]):
        if momentum != 0:
            moment[:] = _NONE
        for step in range(steps[c]):
            b = counts[c, step]
            if b == 0 and bound == 0:
                continue
            for i in range(b):
                line = rows[i * padded(sizes[0]) : i * padded(sizes[0]) + sizes[0]]
                line[:] = x[batches[c, step, i]]
            forward(flat, places, rows, sizes, starts, activation, b)
            share = _ONE / np.float32(b) if bound == 0 else _ONE
            for i in range(b):
                at, window = starts[layers] + i * padded(sizes[layers]), batches[c, step, i]
                # Of the two kinds of labels a loss reads one; the other has no rows.
                goal = wanted[window] if len(wanted) else rows[:0]
                label = classes[window] if len(classes) else 0
                slope(loss, rows[at : at + sizes[layers]], goal, label, deltas[at : at + sizes[layers]], share)
            if plain:
                for layer in range(layers - 1, -1, -1):
                    if layer:
                        back(flat, places, rows, deltas, sizes, starts, activation, layer, b)
                    push(flat, places, rows, deltas, sizes, starts, layer, b, -rate, 1)
                continue
            for layer in range(layers - 1, 0, -1):
                back(flat, places, rows, deltas, sizes, starts, activation, layer, b)
            if bound > 0:
                clip_windows(rows, deltas, sizes, starts, b, bound)
            for layer in range(layers):
                push(gradient, places, rows, deltas, sizes, starts, layer, b, _ONE / divisor, 0)
            if bound > 0:
                draw_noise(noise, keys[c, step], deviation / divisor)
                add_rows(sizes, noise, gradient, True)
            descend(flat, gradient, moment, start, rate, momentum, decay, proximal)
        lost += add_update(flat, start, weights[c], summed)
    add_rows(sizes, total, summed, False)
    return lost
