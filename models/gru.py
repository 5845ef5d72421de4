"""Gated recurrent unit made of Linear layers: forecaster or classifier over time.

Source: Cho et al. 2014, arXiv 1406.1078, in the variant of cuDNN (the reset gate acts after the matrix product), so
that weights of `torch.nn.GRU` fit: `input` is [weight_ih, bias_ih], `recurrent` is [weight_hh, bias_hh], gates r, z, n.
Written out because a Linear has per-example gradients, and because the unrolled graph quantizes: every product is int8.

Shapes: N windows, T time steps, F features, H hidden, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsite.models import options


class Layer(nn.Module):
    """One recurrent layer."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.input = nn.Linear(inputs, 3 * hidden)
        self.recurrent = nn.Linear(hidden, 3 * hidden)
        bound = hidden**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x_ntf: Tensor) -> list[Tensor]:
        """[N, T, F] to the hidden state after each step, T times [N, H]."""
        # One product for all steps; only the recurrent one is sequential.
        driven = self.input(x_ntf).unbind(1)
        state = torch.zeros_like(driven[0][:, : self.hidden])
        states = []
        for step in driven:
            reset_in, update_in, new_in = step.chunk(3, 1)
            reset_state, update_state, new_state = self.recurrent(state).chunk(3, 1)
            reset = torch.sigmoid(reset_in + reset_state)
            update = torch.sigmoid(update_in + update_state)
            new = torch.tanh(new_in + reset * new_state)
            state = new + update * (state - new)
            states.append(state)
        return states


class GRU(nn.Module):
    """Recurrent layers; the last hidden state is read out."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """Settings of the architecture."""

        hidden: int = 32
        layers: int = 1

        def __post_init__(self) -> None:
            options.between("hidden", self.hidden, 1, 1024)
            options.between("layers", self.layers, 1, 4)

    def __init__(self, settings: Options, *, time: int, features: int, outputs: int) -> None:
        super().__init__()
        # The graph is unrolled: a long window makes a long graph.
        options.between("the window's length for gru", time, 1, 256)
        widths = (features, *(settings.hidden,) * settings.layers)
        self.layers = nn.ModuleList(Layer(inputs, settings.hidden) for inputs in widths[:-1])
        self.head = nn.Linear(settings.hidden, outputs)

    def forward(self, x_ntf: Tensor) -> Tensor:
        """[N, T, F] to [N, O]."""
        states: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            states = layer(torch.stack(states, 1) if index else x_ntf)
        y_no: Tensor = self.head(states[-1])
        return y_no
