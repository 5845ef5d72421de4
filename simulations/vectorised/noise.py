"""The normal draws of randomness.py as tensor operations, for noise that is made where it is added.

The same hashes: integers of 64 bits wrap around alike, signed or not. Logarithm and cosine are the device's own, so
draws differ from NumPy's in the last places.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from fedsite.simulations.vectorised.randomness import FIRST, GOLDEN, SECOND, Keys

_BLOCK: Final = 1 << 22  # hashes at a time (32 MiB)


def normal(keys: Keys, count: int, device: str) -> Tensor:
    """Standard normal draws [C, count] float32 of the streams `keys` [C]."""
    half = (count + 1) // 2
    found = torch.empty((len(keys), 2 * half), device=device)
    starts = torch.from_numpy(keys.view(np.int64)).to(device)[:, None]
    places = torch.arange(1, half + 1, device=device) * _signed(GOLDEN)
    step = max(1, _BLOCK // max(half, 1))
    for first in range(0, len(keys), step):
        part = slice(first, first + step)
        draws = _mixed(starts[part] + places)
        uniform = ((_shifted(draws, 32)).float() + 1.0) * 2.0**-32
        radius = (-2.0 * uniform.log()).sqrt_()
        angle = (draws & 0xFFFFFFFF).float() * (2.0 * np.pi * 2.0**-32)
        found[part, :half] = radius * angle.cos()
        found[part, half:] = radius * angle.sin()
    return found[:, :count]


def _mixed(z: Tensor) -> Tensor:
    """SplitMix64's finalizer, as in randomness.py."""
    z = (z ^ _shifted(z, 30)) * _signed(FIRST)
    z = (z ^ _shifted(z, 27)) * _signed(SECOND)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """To the right as if unsigned: torch's shift fills up with the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The signed integer of the same 64 bits."""
    return number - 2**64 if number >= 2**63 else number
