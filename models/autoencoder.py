"""Dense autoencoder: the window squeezed through a narrow code and rebuilt; what it cannot rebuild is unusual.

Shapes: N windows, T time steps, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fedsite.models import layers, options


class Autoencoder(nn.Module):
    """Encoder and its mirror image on the flattened window."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """Settings of the architecture."""

        hidden: tuple[int, ...] = (24,)  # widths from the window down to the code; the decoder mirrors them
        code: int = 8  # width of the narrowest layer
        activation: layers.Activation = "tanh"

        def __post_init__(self) -> None:
            options.widths("hidden", self.hidden, shortest=0)
            options.between("code", self.code, 1, options.LARGEST_WIDTH)

    def __init__(self, settings: Options, *, time: int, features: int, outputs: int) -> None:
        super().__init__()
        del outputs  # a reconstruction has the shape of its input
        self.shape = (time, features)
        down = (time * features, *settings.hidden, settings.code)
        self.encoder = layers.dense(down, settings.activation)
        self.activation = layers.activation(settings.activation)
        self.decoder = layers.dense(down[::-1], settings.activation)

    def forward(self, x_ntf: Tensor) -> Tensor:
        """[N, T, F] to its reconstruction [N, T, F]."""
        code = self.activation(self.encoder(x_ntf.flatten(1)))
        rebuilt: Tensor = self.decoder(code)
        return rebuilt.unflatten(1, self.shape)
