"""What kernels do number by number, for Numba to compile: activations, losses, noise, optimizer steps, integer sums.

Loops over plain slices, which LLVM turns into vector instructions; few arrays in each, or it would have to ask which of
them overlap.

Source: tanh as in Eigen (a rational function, error below 3 units in the last place); log, sin and cos as in Cephes.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from fedsite.simulations.vectorised.randomness import FIRST, GOLDEN, SECOND
from fedsite.simulations.vectorised.sums import BOUND, STEPS

# Numbers that are not finite stay what they are: a run that diverged must be seen.
_MATHS = {"reassoc", "contract", "nsz", "arcp"}
kernel = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_MATHS)
_G, _M1, _M2 = np.uint64(GOLDEN), np.uint64(FIRST), np.uint64(SECOND)
RELU, LEAKY, TANH = 0, 1, 2
SQUARED, SOFTMAX, LOGISTIC = 0, 1, 2


@kernel
def activate(kind, z):
    """The activation of each number, in place."""
    if kind == RELU:
        for i in range(z.size):
            z[i] = max(z[i], np.float32(0.0))
    elif kind == LEAKY:
        for i in range(z.size):
            z[i] = z[i] if z[i] > 0 else z[i] * np.float32(0.01)
    else:
        for i in range(z.size):
            x = min(max(z[i], np.float32(-9.0)), np.float32(9.0)) if z[i] == z[i] else z[i]
            s = x * x
            top = s * np.float32(-2.76076847742355e-16) + np.float32(2.00018790482477e-13)
            top = s * top + np.float32(-8.60467152213735e-11)
            top = s * top + np.float32(5.12229709037114e-08)
            top = s * top + np.float32(1.48572235717979e-05)
            top = s * top + np.float32(6.37261928875436e-04)
            top = s * top + np.float32(4.89352455891786e-03)
            low = s * np.float32(1.19825839466702e-06) + np.float32(1.18534705686654e-04)
            low = s * low + np.float32(2.26843463243900e-03)
            low = s * low + np.float32(4.89352518554385e-03)
            z[i] = x * top / low


@kernel
def derive(kind, delta, a):
    """delta ← delta · (derivative of the activation whose output is a)."""
    if kind == RELU:
        for i in range(a.size):
            delta[i] = delta[i] if a[i] > 0 else np.float32(0.0)
    elif kind == LEAKY:
        for i in range(a.size):
            delta[i] = delta[i] if a[i] > 0 else delta[i] * np.float32(0.01)
    else:
        for i in range(a.size):
            delta[i] *= np.float32(1.0) - a[i] * a[i]


@kernel
def slope(loss, line, goal, label, into, share):
    """into [O] ← share · derivative of one window's loss at its output `line` [O]; `goal` [O] or `label` is wanted."""
    count = line.size
    if loss == SQUARED:
        for i in range(count):
            into[i] = (line[i] - goal[i]) * (share * np.float32(2.0) / np.float32(count))
    elif loss == SOFTMAX:
        most, total = line.max(), 0.0
        for i in range(count):
            total += math.exp(line[i] - most)
        for i in range(count):
            into[i] = share * np.float32(math.exp(line[i] - most) / total)
        into[label] -= share
    else:
        for i in range(count):
            into[i] = share * (np.float32(1.0 / (1.0 + math.exp(-line[i]))) - goal[i]) / np.float32(count)


@kernel
def squares(a):
    """Σ a²."""
    total = np.float32(0.0)
    for i in range(a.size):
        total += a[i] * a[i]
    return total


@kernel
def rescale(a, factor):
    """a ← factor · a, and 0 for factor 0 whatever a holds."""
    if factor == 0:
        a[:] = np.float32(0.0)
    for i in range(a.size):
        a[i] *= factor


@kernel
def add_to(into, values):
    """into += values."""
    for i in range(into.size):
        into[i] += values[i]


@kernel
def descend(flat, gradient, moment, start, rate, momentum, decay, proximal):
    """One optimizer step on flat vectors [P]."""
    if momentum == 0 and decay == 0 and proximal == 0:
        for i in range(flat.size):
            flat[i] -= rate * gradient[i]
        return
    for i in range(flat.size):
        found = gradient[i] + decay * flat[i] + proximal * (flat[i] - start[i])
        found += momentum * moment[i]
        moment[i] = found
        flat[i] -= rate * found


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


@kernel
def add_update(flat, start, weight, total):
    """total += weight · (flat − start) on the grid, flat ← start; returns how many numbers had no place on it."""
    lost = 0
    for i in range(flat.size):
        change = flat[i] - start[i]
        lost += 0 if abs(change) < np.float32(BOUND) else 1
        total[i] += weight * np.int64(np.rint(change * np.float32(STEPS)))
        flat[i] = start[i]
    return lost
