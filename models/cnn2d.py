"""Small 2D convolutional network on a window read as an image: rows by columns, one channel.

Shapes: N windows, R rows (time axis), C columns (feature axis), O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fedsite.models import layers, options
from fedsite.protocol.errors import ConfigError


class CNN2d(nn.Module):
    """2D convolutions, strided or each followed by a pool, and dense layers on top."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """Settings of the architecture."""

        channels: tuple[int, ...] = (8, 16)  # width after each convolution
        kernel: int = 3  # pixels, odd
        stride: int = 2  # pixels between outputs of each convolution
        pool: int = 0  # side of the squares whose largest pixel is kept after each convolution; 0: all are kept
        hidden: tuple[int, ...] = (32,)  # dense layers before the output
        activation: layers.Activation = "relu"
        norm: layers.Norm = "none"

        def __post_init__(self) -> None:
            options.widths("channels", self.channels)
            options.odd("kernel", self.kernel)
            options.between("stride", self.stride, 1, 16)
            options.between("pool", self.pool, 0, 16)
            options.widths("hidden", self.hidden, shortest=0)

    def __init__(self, settings: Options, *, time: int, features: int, outputs: int) -> None:
        super().__init__()
        rows, columns = time, features
        stack: list[nn.Module] = []
        for inputs, width in zip((1, *settings.channels), settings.channels, strict=False):
            stack += [
                nn.Conv2d(inputs, width, settings.kernel, stride=settings.stride, padding=settings.kernel // 2),
                layers.norm(settings.norm, width),
                layers.activation(settings.activation),
            ]
            rows, columns = (rows - 1) // settings.stride + 1, (columns - 1) // settings.stride + 1
            if settings.pool > 1:
                # Squares that do not fit at the far edges are left out; an image smaller than a square is refused.
                rows, columns = rows // settings.pool, columns // settings.pool
                stack.append(nn.MaxPool2d(settings.pool))
        if min(rows, columns) < 1:
            raise ConfigError(
                f"model.options.pool {settings.pool} on windows of {time} x {features}",
                allowed="windows of which every convolution leaves a square",
                next_step="set a smaller pool or stride, or fewer channels",
            )
        self.convolutions = nn.Sequential(*stack)
        self.head = layers.dense(
            (settings.channels[-1] * rows * columns, *settings.hidden, outputs), settings.activation
        )

    def forward(self, x_nrc: Tensor) -> Tensor:
        """[N, R, C] to [N, O]."""
        y_no: Tensor = self.head(self.convolutions(x_nrc.unsqueeze(1)).flatten(1))
        return y_no
