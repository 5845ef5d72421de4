"""1D convolutional network over time: classifier, or regressor of remaining life with one output.

Shapes: N windows, T time steps, F features, C channels, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from fedsite.models import layers, options


class CNN1d(nn.Module):
    """Strided convolutions along time, pooled or flattened, and dense layers on top."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """Settings of the architecture."""

        channels: tuple[int, ...] = (16, 32)  # width after each convolution
        kernel: int = 5  # time steps, odd
        stride: int = 2  # time steps between outputs of each convolution
        pool: Literal["mean", "flatten"] = "mean"  # flatten keeps where in the window something happened
        hidden: tuple[int, ...] = ()  # dense layers before the output
        activation: layers.Activation = "relu"
        norm: layers.Norm = "none"

        def __post_init__(self) -> None:
            options.widths("channels", self.channels)
            options.odd("kernel", self.kernel)
            options.between("stride", self.stride, 1, 16)
            options.widths("hidden", self.hidden, shortest=0)

    def __init__(self, settings: Options, *, time: int, features: int, outputs: int) -> None:
        super().__init__()
        stack: list[nn.Module] = []
        for inputs, width in zip((features, *settings.channels), settings.channels, strict=False):
            stack += [
                nn.Conv1d(inputs, width, settings.kernel, stride=settings.stride, padding=settings.kernel // 2),
                layers.norm(settings.norm, width),
                layers.activation(settings.activation),
            ]
            time = (time - 1) // settings.stride + 1
        mean = settings.pool == "mean"
        self.convolutions = nn.Sequential(*stack)
        self.pool = nn.AdaptiveAvgPool1d(1) if mean else nn.Identity()
        width = settings.channels[-1] * (1 if mean else time)
        self.head = layers.dense((width, *settings.hidden, outputs), settings.activation)

    def forward(self, x_ntf: Tensor) -> Tensor:
        """[N, T, F] to [N, O]."""
        y_nct = self.pool(self.convolutions(x_ntf.transpose(1, 2)))
        y_no: Tensor = self.head(y_nct.flatten(1))
        return y_no
