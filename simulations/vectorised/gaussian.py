"""Gaussian noise for kernels: the draws of randomness.normal, to rounding, in loops that become vector instructions.

Source: log, sin and cos as in Cephes.
"""

from __future__ import annotations

import math

import numpy as np

from fedsite.simulations.vectorised.elementwise import kernel
from fedsite.simulations.vectorised.randomness import FIRST, GOLDEN, SECOND

_G, _M1, _M2 = np.uint64(GOLDEN), np.uint64(FIRST), np.uint64(SECOND)


@kernel
def draw_noise(noise, key, scale):
    """noise ← scale · randomness.normal(key)."""
    half = (noise.size + 1) // 2
    uniform, cosine, sine = np.empty(256, np.float32), np.empty(256, np.float32), np.empty(256, np.float32)
    exponent = uniform.view(np.int32)
    turn, power = np.empty(256, np.uint32), np.empty(256, np.int32)
    for start in range(0, half, 256):
        count = min(256, half - start)
        for i in range(count):
            z = key + _G * np.uint64(start + i + 1)
            z = (z ^ (z >> np.uint64(30))) * _M1
            z = (z ^ (z >> np.uint64(27))) * _M2
            z = z ^ (z >> np.uint64(31))
            uniform[i] = (np.float32(np.uint32(z >> np.uint64(32))) + np.float32(1.0)) * np.float32(2.0**-32)
            turn[i] = np.uint32(z & np.uint64(0xFFFFFFFF))
        split(exponent, power)
        radii(uniform, power, cosine)
        waves(turn, cosine, sine)
        first = noise[start : start + count]
        for i in range(count):
            first[i] = scale * cosine[i]
        second = noise[half + start : half + start + count]
        for i in range(second.size):
            second[i] = scale * sine[i]


@kernel
def split(bits, power):
    """Of numbers x, as their bits: power of 2 into `power`, and the rest, in [√½, √2), back into `bits`."""
    for i in range(bits.size):
        shifted = np.int32(bits[i] - np.int32(0x3F3504F3))  # √½
        power[i] = shifted >> np.int32(23)
        bits[i] = np.int32((shifted & np.int32(0x7FFFFF)) + np.int32(0x3F3504F3))


@kernel
def radii(rest, power, radius):
    """radius ← sqrt(−2 ln(rest · 2^power))."""
    for i in range(rest.size):
        x = rest[i] - np.float32(1.0)
        y = np.float32(7.0376836292e-2) * x - np.float32(1.1514610310e-1)
        y = y * x + np.float32(1.1676998740e-1)
        y = y * x - np.float32(1.2420140846e-1)
        y = y * x + np.float32(1.4249322787e-1)
        y = y * x - np.float32(1.6668057665e-1)
        y = y * x + np.float32(2.0000714765e-1)
        y = y * x - np.float32(2.4999993993e-1)
        y = y * x + np.float32(3.3333331174e-1)
        y = x + x * x * (x * y - np.float32(0.5)) + np.float32(power[i]) * np.float32(0.6931471805599453)
        radius[i] = np.sqrt(max(np.float32(-2.0) * y, np.float32(0.0)))


@kernel
def waves(turn, cosine, sine):
    """Radius in `cosine` → radius · cos and radius · sin of turn / 2^32 of a circle."""
    for i in range(turn.size):
        moved = np.uint32(turn[i] + np.uint32(0x20000000))
        quadrant = np.int32(moved >> np.uint32(30))
        rest = np.int32(moved & np.uint32(0x3FFFFFFF)) - np.int32(0x20000000)
        x = np.float32(rest) * np.float32(2.0 * math.pi * 2.0**-32)
        s = x * x
        y = (np.float32(-1.9515295891e-4) * s + np.float32(8.3321608736e-3)) * s - np.float32(1.6666654611e-1)
        odd = y * s * x + x
        y = (np.float32(2.443315711809948e-5) * s - np.float32(1.388731625493765e-3)) * s
        even = (y + np.float32(4.166664568298827e-2)) * s * s - np.float32(0.5) * s + np.float32(1.0)
        c, d = (odd, even) if quadrant & 1 else (even, odd)
        radius = cosine[i]
        cosine[i] = radius * (-c if quadrant == 1 or quadrant == 2 else c)
        sine[i] = radius * (-d if quadrant >= 2 else d)
