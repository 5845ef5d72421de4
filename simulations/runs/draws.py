"""Numbers drawn for many sites at once, counter-based: the same for a site however many others there are.

Source: Box and Muller 1958; the bits are those of vectorised.randomness.
"""

from __future__ import annotations

from enum import IntEnum
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fedsite.simulations.vectorised import randomness
from fedsite.simulations.vectorised.randomness import Purpose

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]


class Draw(IntEnum):
    """What is drawn for a site; apart from every `Purpose`."""

    PARTITION = 101
    SHIFT = 102
    DRIFT = 103
    PRIOR = 104
    THERE = 105
    ZONE = 106
    SPEED = 107
    JITTER = 108
    LINK = 109
    LOST = 110
    ORDER = 111


def uniforms(seed: int, what: Draw, *counters: int | Ints, count: int) -> Reals:
    """Uniform on (0, 1): [..., count], by the counters' shape."""
    keys = randomness.key(seed, cast(Purpose, what), *counters)
    return (np.right_shift(randomness.bits(keys, count), np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normals(seed: int, what: Draw, *counters: int | Ints, count: int) -> Reals:
    """Standard normal: [..., count], by the counters' shape."""
    found = uniforms(seed, what, *counters, count=2 * count)
    radius = np.sqrt(-2.0 * np.log(found[..., :count]))
    return cast(Reals, radius * np.cos(2.0 * np.pi * found[..., count:]))
