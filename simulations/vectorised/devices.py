"""Where sites train together: which devices there are, and the windows there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.vectorised.schedule import Ints, Schedule

NAMES: Final = ("cpu", "cuda")
_RESIDENT: Final = 0.5  # of a GPU's free memory that the population may take


def check(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        ConfigError: no such device.
    """
    if device not in NAMES:
        raise ConfigError(f"simulation.device is {device!r}", allowed=" or ".join(NAMES))
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "simulation.device is cuda, and torch finds no CUDA device here",
            allowed="cpu, or cuda where torch.cuda.is_available()",
            next_step="set simulation.device=cpu, or install torch for this machine's driver (pytorch.org)",
        )


def exact(device: str) -> None:
    """Products of float32 numbers in float32: a GPU's convolutions would round their operands to 10 bits."""
    if device == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A chunk's schedule where it trains. `rows`, `unit` [C, S, B] and `counts` [C, S] as in `Schedule`."""

    x: Tensor  # [window, ...] that `rows` count
    y: Tensor
    rows: Tensor
    counts: Tensor
    unit: Tensor | None


class Windows:
    """A population's windows on a device: all of them where they fit, else those of a chunk as it comes."""

    def __init__(self, x: NDArray[np.generic], y: NDArray[np.generic], device: str) -> None:
        self._device = device
        self.x, self._same = torch.from_numpy(x), y is x
        self.y = self.x if self._same else torch.from_numpy(y)
        self.resident = device == "cpu" or x.nbytes + y.nbytes <= _RESIDENT * torch.cuda.mem_get_info()[0]
        if self.resident:
            self.x = self.x.to(device)
            self.y = self.x if self._same else self.y.to(device)

    def drawn(self, plan: Schedule) -> Drawn:
        """What a chunk's steps read."""
        x, y, rows = self.x, self.y, plan.rows
        if not self.resident:
            wanted, found = np.unique(rows, return_inverse=True)
            rows = found.reshape(rows.shape)
            x = self._moved(self.x, wanted)
            y = x if self._same else self._moved(self.y, wanted)
        return Drawn(
            x=x,
            y=y,
            rows=torch.from_numpy(rows).to(self._device),
            counts=torch.from_numpy(plan.counts).to(self._device),
            unit=None if plan.unit is None else torch.from_numpy(plan.unit).to(self._device),
        )

    def _moved(self, of: Tensor, wanted: Ints) -> Tensor:
        picked = of[torch.from_numpy(wanted)]
        if self._device != "cpu":
            picked = picked.pin_memory()  # copied while the processor draws on
        return picked.to(self._device, non_blocking=True)
