"""Multilayer perceptron on the flattened window: classifier, forecaster or regressor of remaining life.

Shapes: N windows, T time steps, F features, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fedsite.models import layers, options


class MLP(nn.Module):
    """Linear layers with an activation between them."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """Settings of the architecture."""

        hidden: tuple[int, ...] = (64, 32)  # widths of the hidden layers; empty: a linear model
        activation: layers.Activation = "tanh"

        def __post_init__(self) -> None:
            options.widths("hidden", self.hidden, shortest=0)

    def __init__(self, settings: Options, *, time: int, features: int, outputs: int) -> None:
        super().__init__()
        self.layers = layers.dense((time * features, *settings.hidden, outputs), settings.activation)

    def forward(self, x_ntf: Tensor) -> Tensor:
        """[N, T, F] to [N, O]."""
        y_no: Tensor = self.layers(x_ntf.flatten(1))
        return y_no
