"""The step of a recurrent layer (`gru`), with its way back through time and its per-unit gradients written out.

Shapes: N windows, T time steps, F features, H hidden, G = 3H numbers into the gates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedsite.models import gru
from fedsite.models.steps_trained import Dense, Sizes, trained_names
from fedsite.models.unit_gradients import UnitGradients, products


class Recurrent:
    """A layer of `gru`: its steps one after the other, its weights' gradients over all steps at once."""

    inward = True

    def __init__(self, layer: gru.Layer) -> None:
        self.layers = (layer.input, layer.recurrent)
        self._recurrent, self._width = layer.recurrent, layer.hidden
        self._input = Dense(layer.input)
        self._wanted = trained_names(layer.recurrent)

    def forward(self, *given: Tensor) -> Tensor:
        """[N, T, F] to the hidden state after each step [T, N, H]."""
        driven_ntg = self._input.forward(given[0])
        windows, steps = driven_ntg.shape[:2]
        width = self._width
        weight_hg, bias = self._recurrent.weight.T, self._recurrent.bias
        states = driven_ntg.new_zeros((steps + 1, windows, width))
        gates = driven_ntg.new_empty((steps, windows, 2 * width))  # reset, update
        new = driven_ntg.new_empty((steps, windows, width))
        recalled = driven_ntg.new_empty((steps, windows, width))  # the state's part of `new`, before the reset
        for step in range(steps):
            driven, state = driven_ntg[:, step], states[step]
            from_state = torch.addmm(bias, state, weight_hg)
            torch.add(driven[:, : 2 * width], from_state[:, : 2 * width], out=gates[step]).sigmoid_()
            recalled[step] = from_state[:, 2 * width :]
            torch.addcmul(driven[:, 2 * width :], gates[step, :, :width], recalled[step], out=new[step]).tanh_()
            torch.lerp(new[step], state, gates[step, :, width:], out=states[step + 1])
        self._states, self._gates, self._new, self._recalled = states, gates, new, recalled
        return states[1:]

    def backward(self, gradient: Tensor) -> Tensor:
        """[T, N, H] to [N, T, F]."""
        width = self._width
        steps, windows = self._new.shape[:2]
        reset, update = self._gates[..., :width], self._gates[..., width:]
        # What a state's gradient is multiplied by on its way into each gate, for all steps at once.
        into_new = (1.0 - update) * (1.0 - self._new.square())
        into_update = (self._states[:-1] - self._new) * update * (1.0 - update)
        into_reset = self._recalled * reset * (1.0 - reset)
        driven = gradient.new_empty((steps, windows, 3 * width))
        from_state = gradient.new_empty((steps, windows, 3 * width))
        flowing = torch.zeros_like(gradient[0])
        for step in range(steps - 1, -1, -1):
            flowing = flowing + gradient[step]
            new = torch.mul(flowing, into_new[step], out=driven[step, :, 2 * width :])
            torch.mul(new, into_reset[step], out=driven[step, :, :width])
            torch.mul(flowing, into_update[step], out=driven[step, :, width : 2 * width])
            from_state[step, :, : 2 * width] = driven[step, :, : 2 * width]
            torch.mul(new, reset[step], out=from_state[step, :, 2 * width :])
            flowing = torch.addmm(flowing * update[step], from_state[step], self._recurrent.weight)
        self._from_state = from_state
        self._input.inward = self.inward
        return self._input.backward(driven.transpose(0, 1))

    def units(self, sizes: Sizes) -> list[UnitGradients]:
        """Of the input's weights, and of the state's."""
        found = self._input.units(sizes)
        if self._wanted:
            a_nli, b_nlo = self._states[:-1].transpose(0, 1), self._from_state.transpose(0, 1)
            found.append(products(self._wanted, a_nli, b_nlo, sizes))
        return found
