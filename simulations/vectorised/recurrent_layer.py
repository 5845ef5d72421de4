"""A recurrent layer in the table of kernels: where recurrent.py finds its weights, windows, states and derivatives.

It takes the whole batch, step after step. OTHER is the value it keeps for itself, SCRATCH another. Where a layer above
reads every state, they lie step after step, [T, B, W] for the windows of this very batch.
"""

from __future__ import annotations

import numpy as np

from fedsite.simulations.vectorised.elementwise import kernel
from fedsite.simulations.vectorised.program import (
    DELTAS,
    FIRST,
    HIDDEN,
    INPUTS,
    OTHER,
    PLACE,
    ROWS,
    SCRATCH,
    SIZE,
    SOURCE,
    STEPS,
    TARGET,
    WINDOWS,
)  # fmt: skip
from fedsite.simulations.vectorised.recurrent import (
    back_to_inputs,
    backward,
    forward,
    push,
    rescale_window,
    states_at,
    take_states,
    take_windows,
    wide,
    window_square,
)

_ALL = np.int64(-1)  # windows


@kernel
def recurrent_forward(layer, values, flat, rows, count):
    """All states, and those that the next layer reads into the layer's value."""
    source, target, space = values[layer[SOURCE]], values[layer[TARGET]], values[layer[OTHER]][ROWS]
    steps, inputs, hidden = layer[STEPS], layer[INPUTS], layer[HIDDEN]
    if layer[WINDOWS]:
        take_windows(rows, source[ROWS] + source[FIRST], source[SIZE], rows, space, steps, count, inputs)
    else:
        take_states(rows, source[ROWS], space, steps, count, inputs)
    forward(flat, layer[PLACE], rows, space, steps, count, inputs, hidden)
    states, block = states_at(space, steps, count, inputs), count * wide(hidden)
    first = 1 if target[SIZE] > wide(hidden) else steps
    size = (steps + 1 - first) * block
    rows[target[ROWS] : target[ROWS] + size] = rows[states + first * block : states + first * block + size]


@kernel
def recurrent_differentiate(layer, values, flat, rows, deltas, count):
    """From the derivative at the layer's value back through time to those at the gates' arguments."""
    target, space, scratch = values[layer[TARGET]], values[layer[OTHER]][ROWS], values[layer[SCRATCH]][ROWS]
    steps, inputs, hidden = layer[STEPS], layer[INPUTS], layer[HIDDEN]
    block, at = count * wide(hidden), target[DELTAS]
    above = deltas[at:at]
    if target[SIZE] > wide(hidden):
        above = deltas[at : at + steps * block]
        at += (steps - 1) * block
    turned = rows[scratch : scratch + 3 * wide(hidden) * wide(hidden)]
    backward(flat, layer[PLACE], rows, space, steps, count, inputs, hidden, deltas[at : at + block], above, turned)


@kernel
def recurrent_backward(layer, values, flat, rows, deltas, count):
    """The derivative at the states that the layer reads."""
    source, space, scratch = values[layer[SOURCE]], values[layer[OTHER]][ROWS], values[layer[SCRATCH]][ROWS]
    steps, inputs, hidden = layer[STEPS], layer[INPUTS], layer[HIDDEN]
    scratch += 3 * wide(hidden) * wide(hidden)
    turned = rows[scratch : scratch + 3 * wide(hidden) * wide(inputs)]
    below = deltas[source[DELTAS] : source[DELTAS] + steps * count * wide(inputs)]
    back_to_inputs(flat, layer[PLACE], rows, space, steps, count, inputs, hidden, below, turned)


@kernel
def recurrent_push(layer, values, into, rows, count, alpha, add):
    """into ← alpha · (gradient), plus into where `add` is not 0."""
    space = values[layer[OTHER]][ROWS]
    push(into, layer[PLACE], rows, space, layer[STEPS], count, layer[INPUTS], layer[HIDDEN], _ALL, alpha, add)


@kernel
def recurrent_square(layer, values, rows, window, count):
    """The squared norm of one window's gradient."""
    space, scratch, hidden = values[layer[OTHER]][ROWS], values[layer[SCRATCH]][ROWS], layer[HIDDEN]
    own = rows[scratch + 3 * wide(hidden) * (wide(hidden) + wide(layer[INPUTS])) :]
    return window_square(own, rows, space, layer[STEPS], count, layer[INPUTS], hidden, window)


@kernel
def recurrent_scale(layer, values, rows, window, count, factor):
    """Multiply one window's derivatives."""
    space = values[layer[OTHER]][ROWS]
    rescale_window(rows, space, layer[STEPS], count, layer[INPUTS], layer[HIDDEN], window, factor)
