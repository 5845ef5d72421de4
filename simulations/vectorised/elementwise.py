"""What kernels do number by number, for Numba to compile: activations, losses, optimizer steps, integer sums.

Loops over plain slices, which LLVM turns into vector instructions; few arrays in each, or it would have to ask which of
them overlap.

Source: tanh as in Eigen (a rational function, error below 3 units in the last place).
"""

from __future__ import annotations

import math

import numba
import numpy as np

from fedsite.simulations.vectorised.sums import BOUND, STEPS

# Numbers that are not finite stay what they are: a run that diverged must be seen.
_MATHS = {"reassoc", "contract", "nsz", "arcp"}
kernel = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_MATHS)
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
def add_scaled(into, values, factor):
    """into += factor · values."""
    for i in range(into.size):
        into[i] += factor * values[i]


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
def add_update(flat, start, weight, total):
    """total += weight · (flat − start) on the grid, flat ← start; returns how many numbers had no place on it."""
    lost = 0
    for i in range(flat.size):
        change = flat[i] - start[i]
        lost += 0 if abs(change) < np.float32(BOUND) else 1
        total[i] += weight * np.int64(np.rint(change * np.float32(STEPS)))
        flat[i] = start[i]
    return lost
