"""Gated recurrent unit made of Linear layers: forecaster or classifier over time.

Source: Cho et al. 2014, arXiv 1406.1078, in the variant of cuDNN (the reset gate acts after the matrix product), so
that weights of `torch.nn.GRU` fit: `input` is [weight_ih, bias_ih], `recurrent` is [weight_hh, bias_hh], gates r, z, n.
Written out because a Linear has per-example gradients, and because its step exports as the body of one ONNX Scan, which
quantizes like any other graph whatever the window's length.

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

    def step(self, state_nh: Tensor, driven_n3h: Tensor) -> Tensor:
        """The next state [N, H]; `driven` is what the input contributes to the three gates."""
        reset_in, update_in, new_in = driven_n3h.chunk(3, 1)
        reset_state, update_state, new_state = self.recurrent(state_nh).chunk(3, 1)
        reset = torch.sigmoid(reset_in + reset_state)
        update = torch.sigmoid(update_in + update_state)
        new = torch.tanh(new_in + reset * new_state)
        return new + update * (state_nh - new)

    def forward(self, x_ntf: Tensor) -> Tensor:
        """[N, T, F] to the hidden state after each step [T, N, H]."""
        # One product for all steps; only the recurrent one is sequential.
        driven_tn3h = self.input(x_ntf).transpose(0, 1)
        state = torch.zeros_like(driven_tn3h[0, :, : self.hidden])
        if torch.compiler.is_exporting():
            from torch._higher_order_ops.scan import scan

            def body(state: Tensor, driven: Tensor) -> tuple[Tensor, Tensor]:
                after = self.step(state, driven)
                return after, after.clone()

            states: Tensor = scan(body, state, driven_tn3h, dim=0)[1]
            return states
        steps = []
        for driven in driven_tn3h.unbind(0):
            state = self.step(state, driven)
            steps.append(state)
        return torch.stack(steps)


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
        del time  # the same step at any length
        widths = (features, *(settings.hidden,) * settings.layers)
        self.layers = nn.ModuleList(Layer(inputs, settings.hidden) for inputs in widths[:-1])
        self.head = nn.Linear(settings.hidden, outputs)

    def forward(self, x_ntf: Tensor) -> Tensor:
        """[N, T, F] to [N, O]."""
        y_ntf = x_ntf
        for layer in self.layers:
            states_tnh = layer(y_ntf)
            y_ntf = states_tnh.transpose(0, 1)
        y_no: Tensor = self.head(states_tnh[-1])
        return y_no
