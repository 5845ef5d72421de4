"""Gated recurrent layers for kernels: forward over time, back through time, weights' gradients as sums over time.

Each gate keeps its own rows, step after step and window after window: what is done number by number runs along slices,
and a weight's gradient, a sum over steps and windows, is one product. Biases are weights of an input that is 1.
A window's own gradient is the same product over its own rows, so its norm is exact.

Source: the variant of models/gru.py; Werbos 1990, "Backpropagation through time".

Shapes: T steps, B windows, F inputs, H hidden, W = padded(H). Flat vectors:
`flat` from `at`: rows of 3 W numbers, gates reset, update, new: F of the inputs' weights, one of their bias, one of the
state's bias, H of the state's weights.
`space` from `s`: inputs [T, B, F + 2], the last two 1; states [T + 1, B, W]; gates [4, T, B, W]: reset, update, what
the state recalls for new, new. Going back overwrites the gates with the loss's derivatives at their arguments.
"""

from __future__ import annotations

import numpy as np

from fedsite.simulations.vectorised.elementwise import TANH, activate, add_to, kernel, rescale, squares
from fedsite.simulations.vectorised.products import product
from fedsite.simulations.vectorised.tiles import LANES

_ONE = np.float32(1.0)
_HALF = np.float32(0.5)
RESET, UPDATE, RECALLED, NEW = 0, 1, 2, 3


@kernel
def wide(hidden):
    """H up to the next multiple of LANES."""
    return (hidden + LANES - 1) // LANES * LANES


@kernel
def weight_size(inputs, hidden):
    """Numbers of a layer in `flat`."""
    return (inputs + 2 + hidden) * 3 * wide(hidden)


@kernel
def space_size(steps, windows, inputs, hidden):
    """Numbers of a layer in `space`."""
    return windows * (steps * (inputs + 2) + (5 * steps + 1) * wide(hidden))


@kernel
def states_at(s, steps, windows, inputs):
    """Where the states begin, [T + 1, B, W]."""
    return s + steps * windows * (inputs + 2)


@kernel
def gates_at(s, steps, windows, inputs, hidden):
    """Where the gates begin, [4, T, B, W]."""
    return states_at(s, steps, windows, inputs) + (steps + 1) * windows * wide(hidden)


@kernel
def add_weights(compact, c, flat, at, inputs, hidden, outward):
    """flat += compact where `outward`, else compact += flat; `compact` from `c` in the order of models/gru.py.

    That order: the inputs' weights [3 H, F] and bias [3 H], the state's weights [3 H, H] and bias [3 H].
    """
    w = wide(hidden)
    line = 3 * w
    for part in range(4):
        count = inputs if part == 0 else hidden if part == 2 else 1
        first = 0 if part == 0 else inputs + 2 if part == 2 else inputs if part == 1 else inputs + 1
        for gate in range(3):
            for h in range(hidden):
                for k in range(count):
                    f = at + (first + k) * line + gate * w + h
                    if outward:
                        flat[f] += compact[c]
                    else:
                        compact[c] += flat[f]
                    c += 1


@kernel
def take_windows(x, x_at, x_row, space, s, steps, windows, inputs):
    """Copy windows [B, T · F], rows of `x`, to the layer's inputs."""
    row = inputs + 2
    for b in range(windows):
        for t in range(steps):
            to, of = s + (t * windows + b) * row, x_at + b * x_row + t * inputs
            for f in range(inputs):
                space[to + f] = x[of + f]
            space[to + inputs] = space[to + inputs + 1] = _ONE


@kernel
def take_states(space, below, s, steps, windows, inputs):
    """Copy the states [T, B, W] of the layer below, from `below`, to the layer's inputs; F are its hidden numbers."""
    row, w = inputs + 2, wide(inputs)
    for line in range(steps * windows):
        to, of = s + line * row, below + line * w
        space[to : to + inputs] = space[of : of + inputs]
        space[to + inputs] = space[to + inputs + 1] = _ONE


@kernel
def logistic(z):
    """1 / (1 + exp(−z)), in place."""
    for i in range(z.size):
        z[i] *= _HALF
    activate(TANH, z)
    for i in range(z.size):
        z[i] = _HALF + _HALF * z[i]


@kernel
def _renew(new, reset, recalled):
    for i in range(new.size):
        new[i] += reset[i] * recalled[i]
    activate(TANH, new)


@kernel
def _advance(after, before, update, new):
    for i in range(after.size):
        after[i] = new[i] + update[i] * (before[i] - new[i])


@kernel
def forward(flat, at, space, s, steps, windows, inputs, hidden):
    """Fill gates and states behind the inputs."""
    w, row = wide(hidden), inputs + 2
    line, block = 3 * w, windows * w
    room, recurrent = steps * block, at + row * line
    states, gates = states_at(s, steps, windows, inputs), gates_at(s, steps, windows, inputs, hidden)
    space[states : states + block] = np.float32(0.0)
    for t in range(steps):
        x, h, g = s + t * windows * row, states + t * block, gates + t * block
        for gate in range(2):
            product(space, x, row, 1, flat, at + gate * w, line, space, g + gate * room, w, windows, w, row, _ONE, 0)
        bias = at + (inputs + 1) * line + 2 * w
        product(space, x + inputs + 1, row, 1, flat, bias, line, space, g + RECALLED * room, w, windows, w, 1, _ONE, 0)
        product(space, x, row, 1, flat, at + 2 * w, line, space, g + NEW * room, w, windows, w, inputs + 1, _ONE, 0)
        for gate in range(3 if t else 0):
            product(
                space, h, w, 1, flat, recurrent + gate * w, line, space, g + gate * room, w, windows, w, hidden, _ONE, 1
            )
        reset, update = space[g : g + block], space[g + UPDATE * room : g + UPDATE * room + block]
        recalled = space[g + RECALLED * room : g + RECALLED * room + block]
        new = space[g + NEW * room : g + NEW * room + block]
        logistic(reset)
        logistic(update)
        _renew(new, reset, recalled)
        _advance(space[h + block : h + 2 * block], space[h : h + block], update, new)


@kernel
def _into_gates(flow, update, new, before):
    """`flow`: derivative at a state → its direct part at the state before; update, new → derivatives at arguments."""
    for i in range(flow.size):
        z, n, d = update[i], new[i], flow[i]
        update[i] = d * (before[i] - n) * z * (_ONE - z)
        new[i] = d * (_ONE - z) * (_ONE - n * n)
        flow[i] = d * z


@kernel
def _into_reset(reset, recalled, new):
    for i in range(reset.size):
        r, d = reset[i], new[i]
        reset[i] = d * recalled[i] * r * (_ONE - r)
        recalled[i] = d * r


@kernel
def _transposed(flat, at, line, rows, columns, into, w):
    """into[j, i] ← flat[at + i · line + j]."""
    for j in range(columns):
        for i in range(rows):
            into[j * w + i] = flat[at + i * line + j]


@kernel
def backward(flat, at, space, s, steps, windows, inputs, hidden, flow, above, turned):
    """Gates become derivatives at their arguments.

    `flow` [B, W]: the derivative at the last state, overwritten; `above` [T, B, W]: at all states, where a layer above
    reads them, or empty; `turned` [3 W · W]: scratch whose gaps are 0.
    """
    w = wide(hidden)
    line, block = 3 * w, windows * w
    room = steps * block
    states, gates = states_at(s, steps, windows, inputs), gates_at(s, steps, windows, inputs, hidden)
    _transposed(flat, at + (inputs + 2) * line, line, hidden, line, turned, w)
    for t in range(steps - 1, -1, -1):
        if above.size and t < steps - 1:
            add_to(flow, above[t * block : (t + 1) * block])
        h, g = states + t * block, gates + t * block
        update = space[g + UPDATE * room : g + UPDATE * room + block]
        new = space[g + NEW * room : g + NEW * room + block]
        _into_gates(flow, update, new, space[h : h + block])
        _into_reset(space[g : g + block], space[g + RECALLED * room : g + RECALLED * room + block], new)
        for gate in range(3 if t else 0):
            product(space, g + gate * room, w, 1, turned, gate * w * w, w, flow, 0, w, windows, w, hidden, _ONE, 1)


@kernel
def back_to_inputs(flat, at, space, s, steps, windows, inputs, hidden, below, turned):
    """below [T, B, padded(F)] ← the derivative at the inputs, for a layer below whose states they are."""
    w, v = wide(hidden), wide(inputs)
    gates = gates_at(s, steps, windows, inputs, hidden)
    room, rows = steps * windows * w, steps * windows
    _transposed(flat, at, 3 * w, inputs, 3 * w, turned, v)
    for gate in range(3):
        g = gates + (NEW if gate == 2 else gate) * room
        product(space, g, w, 1, turned, gate * w * v, v, below, 0, v, rows, v, hidden, _ONE, min(gate, 1))


@kernel
def push(into, at, space, s, steps, windows, inputs, hidden, window, alpha, add):
    """into ← alpha · gradient, plus into where `add` is not 0: of all windows, or of one where `window` is not −1.

    `into` may be the weights themselves.
    """
    w, row = wide(hidden), inputs + 2
    line, room = 3 * w, steps * windows * w
    states, gates = states_at(s, steps, windows, inputs), gates_at(s, steps, windows, inputs, hidden)
    first, apart, depth = (0, 1, steps * windows) if window < 0 else (window, windows, steps)
    x, h, g = s + first * row, states + first * w, gates + first * w
    across, down = apart * row, apart * w
    for gate in range(3):
        d, rows = (g + NEW * room, inputs + 1) if gate == 2 else (g + gate * room, row)
        product(space, x, 1, across, space, d, down, into, at + gate * w, line, rows, w, depth, alpha, add)
    bias, d = at + (inputs + 1) * line + 2 * w, g + RECALLED * room
    product(space, x + inputs + 1, 1, across, space, d, down, into, bias, line, 1, w, depth, alpha, add)
    for gate in range(3):
        c, d = at + row * line + gate * w, g + gate * room
        product(space, h, 1, down, space, d, down, into, c, line, hidden, w, depth, alpha, add)


@kernel
def window_square(scratch, space, s, steps, windows, inputs, hidden, window):
    """The squared norm of one window's gradient; `scratch` [weight_size] holds it."""
    push(scratch, 0, space, s, steps, windows, inputs, hidden, window, _ONE, 0)
    return squares(scratch[: weight_size(inputs, hidden)])


@kernel
def rescale_window(space, s, steps, windows, inputs, hidden, window, factor):
    """Multiply one window's derivatives, and so its part of the gradient."""
    w, gates = wide(hidden), gates_at(s, steps, windows, inputs, hidden)
    for line in range(4 * steps):
        g = gates + (line * windows + window) * w
        rescale(space[g : g + w], factor)
