"""The step of a recurrent layer (`gru`), with its way back through time and its per-unit gradients written out.

Shapes: N windows, T time steps, F features, H hidden, G = 3H numbers into the gates.
"""

from __future__ import annotations

import numpy as np

from fedsite.models import gru
from fedsite.models.steps_plain import Array
from fedsite.models.steps_trained import Dense, Sizes, trained_names, values
from fedsite.models.unit_gradients import UnitGradients, products


class Recurrent:
    """A layer of `gru`: its steps one after the other, its weights' gradients over all steps at once."""

    inward = True

    def __init__(self, layer: gru.Layer) -> None:
        self.layers = (layer.input, layer.recurrent)
        self._input, self._wanted = Dense(layer.input), trained_names(layer.recurrent)
        self._weight, self._bias, self._width = (
            values(layer.recurrent.weight),
            values(layer.recurrent.bias),
            layer.hidden,
        )

    def forward(self, *given: Array) -> Array:
        """[N, T, F] to the hidden state after each step [T, N, H]."""
        driven_tng = np.ascontiguousarray(self._input.forward(given[0]).swapaxes(0, 1))
        steps, windows = driven_tng.shape[:2]
        width = self._width
        states = np.zeros((steps + 1, windows, width))
        gates = np.empty((steps, windows, 2 * width))  # reset, update
        new = np.empty((steps, windows, width))
        recalled = np.empty((steps, windows, width))  # the state's part of `new`, before the reset
        weight_hg = np.ascontiguousarray(self._weight.T)
        for step in range(steps):
            driven, state, gate = driven_tng[step], states[step], gates[step]
            from_state = state @ weight_hg
            from_state += self._bias
            np.add(driven[:, : 2 * width], from_state[:, : 2 * width], out=gate)
            np.negative(gate, out=gate)
            np.exp(gate, out=gate)
            gate += 1.0
            np.reciprocal(gate, out=gate)
            recalled[step] = from_state[:, 2 * width :]
            np.multiply(gate[:, :width], recalled[step], out=new[step])
            new[step] += driven[:, 2 * width :]
            np.tanh(new[step], out=new[step])
            np.subtract(state, new[step], out=states[step + 1])
            states[step + 1] *= gate[:, width:]
            states[step + 1] += new[step]
        self._states, self._gates, self._new, self._recalled = states, gates, new, recalled
        return states[1:]

    def backward(self, gradient: Array) -> Array:
        """[T, N, H] to [N, T, F]."""
        width = self._width
        steps, windows = self._new.shape[:2]
        reset, update = self._gates[..., :width], self._gates[..., width:]
        # What a state's gradient is multiplied by on its way into each gate, for all steps at once.
        into_new = (1.0 - update) * (1.0 - self._new * self._new)
        into_update = (self._states[:-1] - self._new) * update * (1.0 - update)
        into_reset = self._recalled * reset * (1.0 - reset)
        driven = np.empty((steps, windows, 3 * width))
        from_state = np.empty((steps, windows, 3 * width))
        flowing = np.zeros((windows, width))
        for step in range(steps - 1, -1, -1):
            flowing = flowing + gradient[step]
            new = flowing * into_new[step]
            driven[step, :, 2 * width :] = new
            np.multiply(new, into_reset[step], out=driven[step, :, :width])
            np.multiply(flowing, into_update[step], out=driven[step, :, width : 2 * width])
            from_state[step, :, : 2 * width] = driven[step, :, : 2 * width]
            np.multiply(new, reset[step], out=from_state[step, :, 2 * width :])
            flowing = flowing * update[step]
            flowing += from_state[step] @ self._weight
        self._from_state = from_state
        self._input.inward = self.inward
        return self._input.backward(np.ascontiguousarray(driven.swapaxes(0, 1)))

    def units(self, sizes: Sizes) -> list[UnitGradients]:
        """Of the input's weights, and of the state's."""
        found = self._input.units(sizes)
        if self._wanted:
            a_nli, b_nlo = (np.ascontiguousarray(part.swapaxes(0, 1)) for part in (self._states[:-1], self._from_state))
            found.append(products(self._wanted, a_nli, b_nlo, sizes))
        return found
