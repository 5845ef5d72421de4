"""What `compiled` runs, for Numba to compile: DP-SGD, momentum and FedProx on dense stacks, one site after the other.

A site's weights, moment and gradient are flat float32 vectors that stay in the processor's cache; products go to BLAS.
Plain functions of arrays: sizes are values, so there is one compilation for all models.

Shapes: C sites, S steps, B windows, L layers, P parameters; layer l takes `sizes[l]` numbers to `sizes[l + 1]`.
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
_kernel = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_MATHS)
_G, _M1, _M2 = np.uint64(GOLDEN), np.uint64(FIRST), np.uint64(SECOND)
RELU, LEAKY, TANH = 0, 1, 2
SQUARED, SOFTMAX, LOGISTIC = 0, 1, 2


@_kernel
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


@_kernel
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


@_kernel
def slope(loss, output, wanted, classes, rows, delta, share):
    """delta [B, O] ← share · derivative of each window's loss at its output [B, O]."""
    count = output.shape[1]
    for b in range(output.shape[0]):
        line, into = output[b], delta[b]
        if loss == SQUARED:
            goal = wanted[rows[b]]
            for i in range(count):
                into[i] = (line[i] - goal[i]) * (share * np.float32(2.0) / np.float32(count))
        elif loss == SOFTMAX:
            most, total = line.max(), 0.0
            for i in range(count):
                total += math.exp(line[i] - most)
            for i in range(count):
                into[i] = share * np.float32(math.exp(line[i] - most) / total)
            into[classes[rows[b]]] -= share
        else:
            goal = wanted[rows[b]]
            for i in range(count):
                into[i] = share * (np.float32(1.0 / (1.0 + math.exp(-line[i]))) - goal[i]) / np.float32(count)


@_kernel
def clip_windows(inputs, deltas, sizes, starts, count, bound):
    """Scale each window's derivatives so that its gradient's norm is at most `bound`; ghost norms."""
    for b in range(count):
        square = np.float32(0.0)
        for layer in range(sizes.size - 1):
            n, m = sizes[layer], sizes[layer + 1]
            a = inputs[starts[layer] + b * n : starts[layer] + (b + 1) * n]
            d = deltas[starts[layer + 1] + b * m : starts[layer + 1] + (b + 1) * m]
            square += squares(d) * (squares(a) + np.float32(1.0))
        norm = np.sqrt(square)
        factor = bound / max(norm, bound)
        for layer in range(1, sizes.size):
            m = sizes[layer]
            d = deltas[starts[layer] + b * m : starts[layer] + (b + 1) * m]
            if norm < np.inf:
                for i in range(m):
                    d[i] *= factor
            else:
                d[:] = np.float32(0.0)


@_kernel
def squares(a):
    """Σ a²."""
    total = np.float32(0.0)
    for i in range(a.size):
        total += a[i] * a[i]
    return total


@_kernel
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


@_kernel
def add_noise(gradient, key, scale):
    """gradient += scale · randomness.normal(key)."""
    half = (gradient.size + 1) // 2
    uniform, cosine, sine = np.empty(256, np.float32), np.empty(256, np.float32), np.empty(256, np.float32)
    exponent = uniform.view(np.int32)
    turn = np.empty(256, np.uint32)
    for start in range(0, half, 256):
        count = min(256, half - start)
        for i in range(count):
            z = key + _G * np.uint64(start + i + 1)
            z = (z ^ (z >> np.uint64(30))) * _M1
            z = (z ^ (z >> np.uint64(27))) * _M2
            z = z ^ (z >> np.uint64(31))
            uniform[i] = (np.float32(np.uint32(z >> np.uint64(32))) + np.float32(1.0)) * np.float32(2.0**-32)
            turn[i] = np.uint32(z & np.uint64(0xFFFFFFFF))
        for i in range(count):
            radius_of(i, uniform, exponent, cosine)
        for i in range(count):
            wave_of(i, turn, cosine, sine)
        first = gradient[start : start + count]
        for i in range(count):
            first[i] += scale * cosine[i]
        second = gradient[half + start : half + start + count]
        for i in range(second.size):
            second[i] += scale * sine[i]


@numba.njit(inline="always")
def radius_of(i, uniform, exponent, radius):
    """sqrt(−2 ln u) for u in (0, 1]."""
    bits = np.int32(exponent[i] - np.int32(0x3F3504F3))  # of sqrt(1/2)
    power = bits >> np.int32(23)
    exponent[i] = np.int32((bits & np.int32(0x7FFFFF)) + np.int32(0x3F3504F3))
    x = uniform[i] - np.float32(1.0)
    y = np.float32(7.0376836292e-2) * x - np.float32(1.1514610310e-1)
    y = y * x + np.float32(1.1676998740e-1)
    y = y * x - np.float32(1.2420140846e-1)
    y = y * x + np.float32(1.4249322787e-1)
    y = y * x - np.float32(1.6668057665e-1)
    y = y * x + np.float32(2.0000714765e-1)
    y = y * x - np.float32(2.4999993993e-1)
    y = y * x + np.float32(3.3333331174e-1)
    y = x + x * x * (x * y - np.float32(0.5))
    logarithm = y + np.float32(power) * np.float32(0.6931471805599453)
    radius[i] = np.sqrt(max(np.float32(-2.0) * logarithm, np.float32(0.0)))


@numba.njit(inline="always")
def wave_of(i, turn, cosine, sine):
    """radius in `cosine` → radius · cos and radius · sin of turn / 2^32 of a circle."""
    moved = np.uint32(turn[i] + np.uint32(0x20000000))
    quadrant = np.int32(moved >> np.uint32(30))
    rest = np.int32(moved & np.uint32(0x3FFFFFFF)) - np.int32(0x20000000)
    x = np.float32(rest) * np.float32(2.0 * math.pi * 2.0**-32)
    s = x * x
    y = (np.float32(-1.9515295891e-4) * s + np.float32(8.3321608736e-3)) * s - np.float32(1.6666654611e-1)
    odd = y * s * x + x
    y = (np.float32(2.443315711809948e-5) * s - np.float32(1.388731625493765e-3)) * s
    even = (y + np.float32(4.166664568298827e-2)) * s * s - np.float32(0.5) * s + np.float32(1.0)
    swap = (quadrant & 1) == 1
    c, d = (odd if swap else even), (even if swap else odd)
    radius = cosine[i]
    cosine[i] = radius * (-c if quadrant == 1 or quadrant == 2 else c)
    sine[i] = radius * (-d if quadrant >= 2 else d)


@_kernel
def add_update(flat, start, weight, total):
    """total += weight · (flat − start) on the grid; returns how many numbers had no place on it."""
    lost = 0
    for i in range(flat.size):
        change = flat[i] - start[i]
        lost += 0 if abs(change) < np.float32(BOUND) else 1
        total[i] += weight * np.int64(np.rint(change * np.float32(STEPS)))
    return lost


@_kernel
def gradients(flat, gradient, inputs, deltas, sizes, starts, activation, loss, x, wanted, classes, batch, share, bound):
    """The gradient [P] of one site's batch [B], clipped where `bound` is above 0; `inputs`, `deltas` are scratch."""
    b, layers = batch.size, sizes.size - 1
    first = inputs[: b * sizes[0]].reshape((b, sizes[0]))
    for i in range(b):
        first[i] = x[batch[i]]
    place = 0
    for layer in range(layers):
        n, m = sizes[layer], sizes[layer + 1]
        a = inputs[starts[layer] : starts[layer] + b * n].reshape((b, n))
        flat_z = inputs[starts[layer + 1] : starts[layer + 1] + b * m]
        z = flat_z.reshape((b, m))
        np.dot(a, flat[place : place + m * n].reshape((m, n)).T, z)
        bias = flat[place + m * n : place + m * n + m]
        for i in range(b):
            line = z[i]
            for j in range(m):
                line[j] += bias[j]
        if layer < layers - 1:
            activate(activation, flat_z)
        place += m * n + m
    m = sizes[layers]
    output = inputs[starts[layers] : starts[layers] + b * m].reshape((b, m))
    slope(loss, output, wanted, classes, batch, deltas[starts[layers] : starts[layers] + b * m].reshape((b, m)), share)
    for layer in range(layers - 1, -1, -1):
        n, m = sizes[layer], sizes[layer + 1]
        place -= m * n + m
        if layer:
            delta = deltas[starts[layer + 1] : starts[layer + 1] + b * m].reshape((b, m))
            flat_before = deltas[starts[layer] : starts[layer] + b * n]
            np.dot(delta, flat[place : place + m * n].reshape((m, n)), flat_before.reshape((b, n)))
            derive(activation, flat_before, inputs[starts[layer] : starts[layer] + b * n])
    if bound > 0:
        clip_windows(inputs, deltas, sizes, starts, b, bound)
    for layer in range(layers):
        n, m = sizes[layer], sizes[layer + 1]
        a = inputs[starts[layer] : starts[layer] + b * n].reshape((b, n))
        delta = deltas[starts[layer + 1] : starts[layer + 1] + b * m].reshape((b, m))
        np.dot(delta.T, a, gradient[place : place + m * n].reshape((m, n)))
        bias = gradient[place + m * n : place + m * n + m]
        bias[:] = np.float32(0.0)
        for i in range(b):
            line = delta[i]
            for j in range(m):
                bias[j] += line[j]
        place += m * n + m


@_kernel
def train_chunk(
    rows, counts, steps, x, wanted, classes, start, sizes, activation, loss, optimizer, private, keys, weights, total
):
    """Train C sites from `start` [P] and add their weighted updates to `total` [P]; returns numbers off the grid.

    `optimizer`: rate, momentum, decay, proximal; `private`: clipping norm or 0, noise's deviation, divisor.
    """
    rate, momentum, decay, proximal = optimizer
    bound, deviation, divisor = private
    width, layers = rows.shape[2], sizes.size - 1
    starts = np.zeros(layers + 2, np.int64)
    for layer in range(layers + 1):
        starts[layer + 1] = starts[layer] + width * sizes[layer]
    inputs, deltas = np.empty(starts[-1], np.float32), np.empty(starts[-1], np.float32)
    flat, gradient, moment = np.empty_like(start), np.zeros_like(start), np.empty_like(start)
    lost = 0
    for c in range(rows.shape[0]):
        flat[:] = start
        moment[:] = np.float32(0.0)
        for step in range(steps[c]):
            b = counts[c, step]
            if b == 0:
                if bound == 0:
                    continue
                gradient[:] = np.float32(0.0)
            else:
                batch = rows[c, step, :b]
                share = np.float32(1.0) / np.float32(b) if bound == 0 else np.float32(1.0)
                gradients(
                    flat,
                    gradient,
                    inputs,
                    deltas,
                    sizes,
                    starts,
                    activation,
                    loss,
                    x,
                    wanted,
                    classes,
                    batch,
                    share,
                    bound,
                )
            if bound > 0:
                add_noise(gradient, keys[c, step], deviation)
                for i in range(gradient.size):
                    gradient[i] *= np.float32(1.0) / divisor
            descend(flat, gradient, moment, start, rate, momentum, decay, proximal)
        lost += add_update(flat, start, weights[c], total)
    return lost
