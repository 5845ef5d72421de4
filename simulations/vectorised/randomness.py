"""Counter-based randomness of a simulation: every number is a hash of (seed, purpose, round, client, step, place).

Nobody has to draw in order, so the same numbers come out however sites are spread over chunks and processes. For
simulation only: whoever knows the seed knows every draw, and SplitMix64 is no cipher (docs/privacy.md).

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (the finalizer); Box and
Muller 1958.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

GOLDEN: Final = 0x9E3779B97F4A7C15
FIRST: Final = 0xBF58476D1CE4E5B9
SECOND: Final = 0x94D049BB133111EB
_SITES: Final = 1 << 16  # of a population, looked at in a time
_BLOCK: Final = 1 << 14  # hashes at a time: what they take stays in the processor's cache
_SHIFTS: Final = tuple(np.uint64(bits) for bits in (30, 27, 31))
Keys = NDArray[np.uint64]


class Purpose(IntEnum):
    """What a number is drawn for; two purposes never share one."""

    COHORT = 1
    BATCH = 2
    SUBSET = 3
    NOISE = 4
    SUM_NOISE = 5
    GROUP = 6


def key(seed: int, purpose: Purpose, *counters: int | NDArray[np.integer]) -> Keys:
    """The key of a stream for each combination of counters, which broadcast against each other."""
    found = _mix(np.array([(seed + GOLDEN * (purpose + 1)) % 2**64], np.uint64))
    for counter in counters:
        found = _mix(found + np.uint64(GOLDEN) * (np.atleast_1d(counter).astype(np.uint64) + np.uint64(1)))
    return found


def bits(keys: Keys, count: int, start: int = 0) -> Keys:
    """The stream of each key from place `start`: [..., count] uniform 64-bit integers."""
    places = np.arange(start + 1, start + count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    return _mix(keys[..., None] + places)


def normal(keys: Keys, count: int) -> NDArray[np.float32]:
    """Standard normal draws [..., count]; the tail ends at 6.66 σ, beyond which lies 3e-11 of the mass."""
    half = (count + 1) // 2
    found = np.empty((*keys.shape, 2 * half), np.float32)
    for index in np.ndindex(keys.shape):
        row = found[index]
        for start in range(0, half, _BLOCK):
            end = min(start + _BLOCK, half)
            draws = bits(keys[index], end - start, start)
            high, low = (draws >> np.uint64(32)).astype(np.uint32), draws.astype(np.uint32)
            uniform = (high.astype(np.float32) + np.float32(1.0)) * np.float32(2.0**-32)
            radius = np.sqrt(np.float32(-2.0) * np.log(uniform))
            angle = low.astype(np.float32) * np.float32(2.0 * np.pi * 2.0**-32)
            row[start:end] = radius * np.cos(angle)
            row[half + start : half + end] = radius * np.sin(angle)
    return found[..., :count]


def threshold(probability: float) -> np.uint64:
    """Draws below this happen with `probability` (0 to 1, rounded down to 2^-64)."""
    return np.uint64(min(int(probability * 2.0**64), 2**64 - 1))


def cohort(seed: int, round_number: int, population: int, size: int) -> NDArray[np.int64]:
    """`size` of `population` sites, without replacement and sorted; the same for everybody who knows seed and round."""
    if size >= population:
        return np.arange(population, dtype=np.int64)
    stream = key(seed, Purpose.COHORT, round_number)[0]
    sites, draws = np.zeros(0, np.int64), np.zeros(0, np.uint64)
    for start in range(0, population, _SITES):  # those drawn lowest so far, and one block more
        end = min(start + _SITES, population)
        sites = np.concatenate([sites, np.arange(start, end)])
        draws = np.concatenate([draws, bits(stream, end - start, start)])
        if len(sites) > size:
            kept = np.argpartition(draws, size)[:size]
            sites, draws = sites[kept], draws[kept]
    return np.sort(sites)


def _mix(z: Keys) -> Keys:
    """The finalizer; arithmetic modulo 2^64."""
    z = (z ^ (z >> _SHIFTS[0])) * np.uint64(FIRST)
    z = (z ^ (z >> _SHIFTS[1])) * np.uint64(SECOND)
    return z ^ (z >> _SHIFTS[2])
