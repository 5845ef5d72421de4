"""Local training as one compiled function for all models: DP-SGD, momentum, FedProx, SCAFFOLD; one site after another.

It walks a table of layers (program.py), each kind of which has its kernels (layers.py): a recurrent layer, say, plugs
in there and finds training, privacy and sums ready. A site's weights stay in the processor's cache.

The layers before `prefix` (convolutions) take one window after the other, so that what lies between them stays in
cache, and under DP-SGD a window's own gradient is written down to know its norm; those behind it (dense, recurrent)
take the batch and know norms without.

Shapes: C sites, S steps, B windows, N parameters. `flat`, `gradient`, `moment`, `start` [padded]: parameters as the
layers want them; `runs` says where each number belongs.
"""

from __future__ import annotations

import numpy as np

from fedsite.simulations.vectorised.elementwise import (
    add_scaled,
    add_to,
    add_update,
    descend,
    kernel,
    rescale,
    slope,
    squares,
)
from fedsite.simulations.vectorised.gaussian import draw_noise
from fedsite.simulations.vectorised.layers import backward, differentiate, forward, prepare, push, scale, square
from fedsite.simulations.vectorised.program import (
    CHANNELS,
    DELTAS,
    FIRST,
    HEIGHT,
    PITCH,
    PLACE,
    ROWS,
    SIZE,
    STRIDE,
    WIDTH,
)  # fmt: skip

_ONE, _NONE = np.float32(1.0), np.float32(0.0)
# Not Python's own: Numba would compile every function anew for every constant that it is called with.
_SET, _ADD, _FIRST, _SINGLE = np.int64(0), np.int64(1), np.int64(0), np.int64(1)


@kernel
def spread(runs, compact, flat):
    """flat += compact, each number in its place."""
    for run in range(len(runs)):
        c, f, count, step = runs[run]
        if step == 1:
            add_to(flat[f : f + count], compact[c : c + count])
        else:
            for i in range(count):
                flat[f + i * step] += compact[c + i]


@kernel
def gather(runs, flat, compact):
    """compact += flat, the inverse of `spread`."""
    for run in range(len(runs)):
        c, f, count, step = runs[run]
        if step == 1:
            add_to(compact[c : c + count], flat[f : f + count])
        else:
            for i in range(count):
                compact[c + i] += flat[f + i * step]


@kernel
def take_window(x, value, rows, i):
    """Copy a window [T · F] to place `i` of the input, inside its border."""
    line = value[WIDTH] * value[CHANNELS]
    at = value[ROWS] + i * value[SIZE] + value[FIRST]
    for row in range(value[HEIGHT]):
        into = rows[at + row * value[PITCH] : at + row * value[PITCH] + line]
        into[:] = x[row * line : (row + 1) * line]


@kernel
def begin_back(loss, value, rows, deltas, i, goal, label, share):
    """share · derivative of window i's loss at the model's answer."""
    count = value[HEIGHT] * value[WIDTH]
    channels = value[CHANNELS]
    a, d = value[ROWS] + i * value[SIZE], value[DELTAS] + i * value[SIZE]
    if value[SIZE] > channels:
        deltas[d : d + value[SIZE]] = _NONE
    for place in range(count):
        at = value[FIRST] + place // value[WIDTH] * value[PITCH] + place % value[WIDTH] * value[STRIDE]
        part = goal[place * channels : (place + 1) * channels] if goal.size else goal
        line, into = rows[a + at : a + at + channels], deltas[d + at : d + at + channels]
        slope(loss, line, part, label, into, share / np.float32(count))


@kernel
def clip_windows(table, values, tables, prefix, flat, turned, rows, deltas, own, gradient, b, bound):
    """Weigh windows so that none's gradient exceeds `bound`; the prefix's are added to `gradient` at once."""
    for i in range(b):
        own[:] = _NONE
        for layer in range(prefix - 1, -1, -1):
            differentiate(table[layer], values, flat, rows, deltas, i, _SINGLE)
            push(table[layer], values, tables, own, rows, deltas, i, _SINGLE, _ONE, _ADD)
            backward(table[layer], values, tables, flat, turned, rows, deltas, i, _SINGLE)
        total = squares(own)
        for layer in range(prefix, len(table)):
            total += square(table[layer], values, rows, deltas, i, b)
        norm = np.sqrt(total)
        factor = bound / max(norm, bound) if norm < np.inf else _NONE
        if factor > 0:
            add_scaled(gradient[: own.size], own, factor)
        for layer in range(prefix, len(table)):
            scale(table[layer], values, rows, deltas, i, b, factor)


@kernel
def train_chunk(
    batches, counts, steps, x, wanted, classes, begin,
    table, values, tables, runs, sizes, loss, optimizer, private, keys, drift, weights, total, updates,
):  # fmt: skip
    """Train C sites from `begin` [N]; returns how many numbers are off the grid.

    Args:
        batches: [C, S, B] windows of `x`. counts: [C, S]. steps: [C].
        x: [window, T · F]. wanted: [window, O] or empty. classes: [window] or empty.
        begin: [N] float32.
        table, values, tables, runs: of a Program, spread for B windows.
        sizes: numbers of all parameters, values, derivatives and turned weights; layers in the prefix.
        loss: a number of elementwise.
        optimizer: rate, momentum, decay, proximal. private: clipping norm or 0, the noise's deviation, divisor.
        keys: [C, S] of the noise.
        drift: [C, N] SCAFFOLD's c − c_i, or empty.
        weights: [C] int64. total: [N] int64; weighted updates are added on the grid.
        updates: [C, N] float32 zeros where the updates themselves are wanted instead, or empty.
    """
    rate, momentum, decay, proximal = optimizer
    bound, deviation, divisor = private
    size, room, back, turns, prefix = sizes
    layers, answer = len(table), values[len(values) - 1]
    simple = momentum == 0 and decay == 0 and proximal == 0 and not len(drift)
    plain = simple and bound == 0
    edge = table[prefix, PLACE] if prefix < layers else size
    rows, deltas = np.zeros(room, np.float32), np.zeros(back, np.float32)
    start, turned = np.zeros(size, np.float32), np.empty(turns, np.float32)
    spread(runs, begin, start)
    flat, gradient, moment = start.copy(), np.zeros_like(start), np.zeros_like(start)
    summed = np.zeros(size if not len(updates) else 0, np.int64)
    noise, own = np.empty(begin.size if bound > 0 else 0, np.float32), np.empty(edge if bound > 0 else 0, np.float32)
    lost = 0
    for c in range(batches.shape[0]):
        if momentum != 0:
            moment[:] = _NONE
        for step in range(steps[c]):
            b = counts[c, step]
            if b == 0 and bound == 0:
                continue
            for layer in range(layers):
                prepare(table[layer], values, flat, turned)
            for i in range(b):
                take_window(x[batches[c, step, i]], values[0], rows, i)
                for layer in range(prefix):
                    forward(table[layer], values, tables, flat, rows, i, _SINGLE)
            for layer in range(prefix, layers):
                forward(table[layer], values, tables, flat, rows, _FIRST, b)
            share = _ONE / np.float32(b) if bound == 0 else _ONE
            for i in range(b):
                window = batches[c, step, i]
                # Of the two kinds of labels a loss reads one; the other has no rows.
                goal = wanted[window] if len(wanted) else rows[:0]
                label = classes[window] if len(classes) else 0
                begin_back(loss, answer, rows, deltas, i, goal, label, share)
            gradient[:edge] = _NONE
            for layer in range(layers - 1, prefix - 1, -1):
                differentiate(table[layer], values, flat, rows, deltas, _FIRST, b)
                backward(table[layer], values, tables, flat, turned, rows, deltas, _FIRST, b)
                if plain:
                    push(table[layer], values, tables, flat, rows, deltas, _FIRST, b, -rate, _ADD)
                elif bound == 0:
                    push(table[layer], values, tables, gradient, rows, deltas, _FIRST, b, _ONE, _SET)
            if bound > 0:
                clip_windows(table, values, tables, prefix, flat, turned, rows, deltas, own, gradient, b, bound)
                rescale(gradient[:edge], _ONE / divisor)
                for layer in range(prefix, layers):
                    push(table[layer], values, tables, gradient, rows, deltas, _FIRST, b, _ONE / divisor, _SET)
                draw_noise(noise, keys[c, step], deviation / divisor)
                spread(runs, noise, gradient)
            else:
                for i in range(b):
                    for layer in range(prefix - 1, -1, -1):
                        differentiate(table[layer], values, flat, rows, deltas, i, _SINGLE)
                        push(table[layer], values, tables, gradient, rows, deltas, i, _SINGLE, _ONE, _ADD)
                        backward(table[layer], values, tables, flat, turned, rows, deltas, i, _SINGLE)
            if len(drift):
                spread(runs, drift[c], gradient)
            last = edge if plain else size
            descend(flat[:last], gradient[:last], moment[:last], start[:last], rate, momentum, decay, proximal)
        if len(updates):
            add_scaled(flat, start, -_ONE)
            gather(runs, flat, updates[c])
            flat[:] = start
        else:
            lost += add_update(flat, start, weights[c], summed)
    if not len(updates):
        gather(runs, summed, total)
    return lost
