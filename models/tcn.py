"""Temporal convolutional network: causal dilated convolutions with residual links; forecaster or classifier.

Source: Bai, Kolter, Koltun 2018, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks", section 3.
Weight norm and dropout of the paper are left out: windows are short and DP noise regularises already.

Shapes: N windows, T time steps, F features, C channels, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from fedsite.models import layers, options


class Block(nn.Module):
    """Two causal convolutions of one dilation, plus their input."""

    def __init__(self, inputs: int, width: int, kernel: int, dilation: int, settings: TCN.Options) -> None:
        super().__init__()
        self.reach = (kernel - 1) * dilation
        self.first = nn.Conv1d(inputs, width, kernel, dilation=dilation)
        self.second = nn.Conv1d(width, width, kernel, dilation=dilation)
        self.first_norm = layers.norm(settings.norm, width)
        self.second_norm = layers.norm(settings.norm, width)
        self.skip = nn.Identity() if inputs == width else nn.Conv1d(inputs, width, 1)
        self.activation = layers.activation(settings.activation)

    def forward(self, x_nct: Tensor) -> Tensor:
        """[N, C, T] to [N, C', T]; an output sees only its own and earlier steps."""
        y = self.activation(self.first_norm(self.first(functional.pad(x_nct, (self.reach, 0)))))
        y = self.activation(self.second_norm(self.second(functional.pad(y, (self.reach, 0)))))
        y_nct: Tensor = self.activation(y + self.skip(x_nct))
        return y_nct


class TCN(nn.Module):
    """Blocks whose dilation doubles; the last time step is read out."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """Settings of the architecture."""

        channels: tuple[int, ...] = (16, 16, 16)  # width of each block; block b looks 2^b steps apart
        kernel: int = 3  # taps
        activation: layers.Activation = "relu"
        norm: layers.Norm = "none"

        def __post_init__(self) -> None:
            options.widths("channels", self.channels)
            options.between("kernel", self.kernel, 1, 63)
            options.between("number of channels", len(self.channels), 1, 12)

    def __init__(self, settings: Options, *, time: int, features: int, outputs: int) -> None:
        super().__init__()
        del time  # causal: any length fits
        widths = zip((features, *settings.channels), settings.channels, strict=False)
        self.blocks = nn.Sequential(
            *(Block(inputs, width, settings.kernel, 2**level, settings) for level, (inputs, width) in enumerate(widths))
        )
        self.head = nn.Linear(settings.channels[-1], outputs)

    def forward(self, x_ntf: Tensor) -> Tensor:
        """[N, T, F] to [N, O]."""
        y_nct = self.blocks(x_ntf.transpose(1, 2))
        y_no: Tensor = self.head(y_nct[:, :, -1])
        return y_no
