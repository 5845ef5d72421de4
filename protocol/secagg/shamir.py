"""Shamir's secret sharing of byte strings over GF(2^8): any `threshold` shares give the secret, fewer say nothing.

Every byte has a polynomial of its own, so a half of a secret can be rebuilt from halves of shares. Table lookups are
not constant in time: another process on the same processor might learn something about a secret, which lives for one
round.

Source: Shamir, CACM 22(11), 1979; the field is that of AES (x^8 + x^4 + x^3 + x + 1, FIPS 197 section 4).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

HOLDERS_MAX: Final = 255
Bytes = NDArray[np.uint8]


def _tables() -> tuple[Bytes, NDArray[np.int64], Bytes]:
    """3^i for i in 0 to 509, the logarithm to base 3, and all products."""
    powers, logarithms = np.zeros(510, np.uint8), np.zeros(256, np.int64)
    value = 1
    for exponent in range(255):
        powers[exponent] = powers[exponent + 255] = value
        logarithms[value] = exponent
        value ^= (value << 1) ^ (0x11B if value & 0x80 else 0)
        value &= 0xFF
    products = powers[logarithms[:, None] + logarithms[None, :]]
    products[0, :] = products[:, 0] = 0
    return powers, logarithms, products


_POWERS, _LOGARITHMS, PRODUCTS = _tables()  # PRODUCTS[a, b] = a · b


def share(secret: bytes, holders: int, threshold: int, random: Callable[[int], bytes] = os.urandom) -> Bytes:
    """Shares for x = 1 to `holders`, [holder, byte].

    Args:
        secret: any length.
        holders: 1 to 255.
        threshold: shares that give the secret, 1 to `holders`.
        random: the coefficients a_1 to a_(threshold − 1), one after the other, each as long as the secret.

    Raises:
        ValueError: holders or threshold out of range.
    """
    if not 1 <= threshold <= holders <= HOLDERS_MAX:
        raise ValueError(f"threshold {threshold} of {holders} holders; allowed: 1 to {HOLDERS_MAX}")
    length = len(secret)
    drawn = np.frombuffer(random((threshold - 1) * length), np.uint8).reshape(threshold - 1, length)
    x = np.arange(1, holders + 1)[:, None]
    found = np.zeros((holders, length), np.uint8)
    for coefficient in drawn[::-1]:  # Horner's rule, from the highest power down
        found = PRODUCTS[x, found ^ coefficient]
    return found ^ np.frombuffer(secret, np.uint8)


def weights(x: Sequence[int]) -> Bytes:
    """Lagrange's weights at 0 for shares at these positions, [share].

    Raises:
        ValueError: a position twice, or not 1 to 255.
    """
    if len(set(x)) != len(x) or not all(1 <= position <= HOLDERS_MAX for position in x):
        raise ValueError("positions of shares; allowed: 1 to 255, each once")
    at = np.asarray(x, np.int64)
    differences = at[:, None] ^ at[None, :]
    np.fill_diagonal(differences, 1)
    others = np.broadcast_to(at[None, :], differences.shape).copy()
    np.fill_diagonal(others, 1)
    exponents = (_LOGARITHMS[others] - _LOGARITHMS[differences]).sum(axis=1) % 255
    return _POWERS[exponents]


def combine(shares: Bytes, weights: Bytes) -> bytes:
    """The secret, from exactly as many shares as its threshold.

    Args:
        shares: [share, byte].
        weights: of their positions, in the same order.
    """
    return np.bitwise_xor.reduce(PRODUCTS[weights[:, None].astype(np.int64), shares], axis=0).tobytes()


def powers(x: Bytes, count: int) -> Bytes:
    """x^0 to x^(count − 1) of positions from 1 on, [position, power]."""
    return _POWERS[_LOGARITHMS[x][:, None] * np.arange(count) % 255]


def inverse(value: int) -> int:
    """1 / value, for a value from 1 to 255."""
    return int(_POWERS[255 - _LOGARITHMS[value]])
