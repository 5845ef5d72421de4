"""Convolutional autoencoder over time: halves the time axis at each layer, narrows the channels, and rebuilds.

Shapes: N windows, T time steps, F features, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from fedsite.models import layers, options


class ConvAutoencoder(nn.Module):
    """Strided 1D convolutions down; nearest-neighbour upsampling and convolutions up.

    Upsampling instead of transposed convolutions: those have no per-example gradients and leave checkerboards.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """Settings of the architecture."""

        channels: tuple[int, ...] = (16, 8)  # width after each halving of time
        kernel: int = 5  # time steps, odd
        code: int = 4  # channels of the narrowest layer
        activation: layers.Activation = "relu"
        norm: layers.Norm = "none"

        def __post_init__(self) -> None:
            options.widths("channels", self.channels)
            options.odd("kernel", self.kernel)
            options.between("code", self.code, 1, options.LARGEST_WIDTH)

    def __init__(self, settings: Options, *, time: int, features: int, outputs: int) -> None:
        super().__init__()
        del outputs  # a reconstruction has the shape of its input
        kernel, pad = settings.kernel, settings.kernel // 2
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        lengths = [time]
        for inputs, width in zip((features, *settings.channels), settings.channels, strict=False):
            down.append(
                nn.Sequential(
                    nn.Conv1d(inputs, width, kernel, stride=2, padding=pad),
                    layers.norm(settings.norm, width),
                    layers.activation(settings.activation),
                )
            )
            lengths.append((lengths[-1] + 1) // 2)
            # The last decoder layer is the output itself: it may take any value.
            last = len(up) == 0
            up.insert(
                0,
                nn.Sequential(
                    nn.Conv1d(width, inputs, kernel, padding=pad),
                    nn.Identity() if last else layers.norm(settings.norm, inputs),
                    nn.Identity() if last else layers.activation(settings.activation),
                ),
            )
        self.lengths = tuple(lengths[-2::-1])
        self.down = nn.ModuleList(down)
        self.narrow = nn.Conv1d(settings.channels[-1], settings.code, 1)
        self.widen = nn.Conv1d(settings.code, settings.channels[-1], 1)
        self.activation = layers.activation(settings.activation)
        self.up = nn.ModuleList(up)

    def forward(self, x_ntf: Tensor) -> Tensor:
        """[N, T, F] to its reconstruction [N, T, F]."""
        y_nct = x_ntf.transpose(1, 2)
        for layer in self.down:
            y_nct = layer(y_nct)
        y_nct = self.activation(self.widen(self.activation(self.narrow(y_nct))))
        for layer, length in zip(self.up, self.lengths, strict=True):
            y_nct = layer(functional.interpolate(y_nct, size=length, mode="nearest"))
        return y_nct.transpose(1, 2)
