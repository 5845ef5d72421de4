"""Where a site's randomness comes from: the operating system for private work, a seed for simulation and tests only.

Poisson draws compare 64-bit integers, so that an inclusion probability is exact to 2^-64 and never above the one that
is accounted for. Normal draws come from 53-bit uniforms (Box and Muller 1958); `mechanisms` snaps them to a grid.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsite.privacy.errors import PrivacyError

_TWO_64 = 2**64


class Source(Protocol):
    """A stream of random bits, and what is made of them."""

    seeded: bool  # True: whoever knows the seed knows every draw, so it hides nothing

    def bits(self, n: int) -> NDArray[np.uint64]:
        """`n` independent uniform 64-bit integers."""
        ...

    def uniform(self, n: int) -> NDArray[np.float64]:
        """`n` uniforms in (0, 1], multiples of 2^-53."""
        ...

    def normal(self, n: int) -> NDArray[np.float64]:
        """`n` standard normal draws."""
        ...


class SystemRandom:
    """The operating system's generator: the only source a real site draws noise from (docs/privacy.md)."""

    seeded = False

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        """`random`: the operating system's bytes, or a cipher's keystream under a key of these."""
        self._random = random

    def bits(self, n: int) -> NDArray[np.uint64]:
        """`n` independent uniform 64-bit integers."""
        return np.frombuffer(self._random(8 * n), dtype=np.uint64)

    def uniform(self, n: int) -> NDArray[np.float64]:
        """`n` uniforms in (0, 1]."""
        return _uniform(self.bits(n))

    def normal(self, n: int) -> NDArray[np.float64]:
        """`n` standard normal draws."""
        return _normal(self, n)


class SeededSource:
    """A reproducible stream (Philox) for simulation and tests. `require_secure` refuses it."""

    seeded = True

    def __init__(self, seed: int | tuple[int, ...]) -> None:
        self._generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))

    def bits(self, n: int) -> NDArray[np.uint64]:
        """`n` independent uniform 64-bit integers."""
        return self._generator.integers(0, _TWO_64, size=n, dtype=np.uint64, endpoint=False)

    def uniform(self, n: int) -> NDArray[np.float64]:
        """`n` uniforms in (0, 1]."""
        return _uniform(self.bits(n))

    def normal(self, n: int) -> NDArray[np.float64]:
        """`n` standard normal draws."""
        return _normal(self, n)


def require_secure(source: Source) -> None:
    """Refuse a source whose draws somebody else could repeat.

    Raises:
        PrivacyError: the source is seeded.
    """
    if source.seeded:
        raise PrivacyError(
            "privacy noise from a seeded source",
            allowed="the operating system's generator (sampling.SystemRandom)",
            next_step="remove the seed; seeded noise exists in simulations only",
        )


def poisson(n: int, q: float, source: Source) -> NDArray[np.int64]:
    """Indices of the records that join a batch, each on its own with probability `q` (rounded down to 2^-64).

    Raises:
        PrivacyError: `q` is not a probability.
    """
    if not 0.0 <= q <= 1.0:
        raise PrivacyError(f"sampling rate {q}", allowed="0 to 1")
    if q == 1.0:
        return np.arange(n, dtype=np.int64)
    threshold = np.uint64(int(math.ldexp(q, 64)))
    return np.flatnonzero(source.bits(n) < threshold).astype(np.int64)


def choose(n: int, k: int, source: Source) -> NDArray[np.int64]:
    """A uniform subset of `k` of `n` indices, sorted; all of them when k ≥ n."""
    if k >= n:
        return np.arange(n, dtype=np.int64)
    return np.sort(np.argsort(source.bits(n), kind="stable")[:k]).astype(np.int64)


def _uniform(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """(0, 1]: zero is left out so that its logarithm is finite."""
    return ((bits >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53


def _normal(source: Source, n: int) -> NDArray[np.float64]:
    """Both coordinates of Box and Muller's pair. The tail ends at 8.57 σ, beyond which lies 1e-17 of the mass."""
    half = (n + 1) // 2
    draws = source.uniform(2 * half)
    radius = np.sqrt(-2.0 * np.log(draws[:half]))
    angle = (2.0 * np.pi) * draws[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]
