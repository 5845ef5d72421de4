"""Between real numbers and Z_2^32: public scales chosen so that the sum over a cohort can never wrap.

A `Field` is one named array with a public bound. Site i sends round(w_i · clip(x_i, ±bound) · scale) with a public or
a measured weight w_i in (0, 1]; the sum of at most n of them stays within ±(2^31 − 1). Distributed noise needs room
too: with it a wrap has the stated tail probability instead of none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import ConfigError, IntegrityError, RefusalCode

WEIGHT_STEP: Final = 2.0**-16  # a weight travels as a multiple of this
LIMIT: Final = 2**31 - 1
BLOCK: Final = 1 << 15  # values rounded at a time: what it takes stays in the processor's cache
Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One array of a vector."""

    name: str
    shape: tuple[int, ...]
    bound: float  # of one site's |value|, public; larger values are clipped
    weighted: bool = False  # multiplied by the site's weight before rounding
    wide: bool = False  # two words for each value: a sum of many small things under a large bound

    @property
    def size(self) -> int:
        """Words."""
        return math.prod(self.shape) * (2 if self.wide else 1)


def scale(bound: float, sites: int, *, noise: float = 0.0) -> float:
    """Steps of the grid per unit: (⌊(2^31 − 1) / n⌋ − 1) / bound, or (2^31 − 1) / (n · bound + 10 σ) with noise.

    Args:
        bound: of one site's value.
        sites: n, the most that can be summed.
        noise: σ of the noise in the sum, in the value's own units.

    Raises:
        ConfigError: too many sites for the ring, or a bound that is not positive.
    """
    if not (bound > 0.0 and math.isfinite(bound)):
        raise ConfigError(f"bound {bound}", allowed="above 0 and finite")
    if not 1 <= sites <= 1 << 20:
        raise ConfigError(f"a cohort of {sites}", allowed=f"1 to {1 << 20}")
    if noise > 0.0:
        return LIMIT / (sites * bound + 10.0 * noise)
    return (LIMIT // sites - 1) / bound


def low_bits(sites: int) -> int:
    """Bits of a wide value's low word, so many that `sites` of them cannot wrap."""
    return 31 - math.ceil(math.log2(sites)) if sites > 1 else 31


def weight_of(examples: int, most: int) -> float:
    """w = examples / most in (0, 1], on the grid of 2^-16: never 0, or a site would send nothing and count."""
    return max(1, min(round(examples / most / WEIGHT_STEP), round(1 / WEIGHT_STEP))) * WEIGHT_STEP


def quantize(values: NDArray[np.generic], bound: float, scale: float, *, weight: float = 1.0) -> NDArray[np.int64]:
    """round(weight · clip(values, ±bound) · scale), half to even; a value that is no number counts as 0.

    Returns:
        int64, in the shape of `values`.
    """
    x = np.nan_to_num(np.asarray(values, np.float64), nan=0.0, posinf=bound, neginf=-bound)
    return np.rint(weight * scale * np.clip(x, -bound, bound)).astype(np.int64)


def to_ring(values: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Modulo 2^32."""
    return values.astype(np.uint32)  # wraps, as a cast between integers does


def from_ring(values: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The representative in −2^31 to 2^31 − 1."""
    return values.view(np.int32).astype(np.int64)


def value_of(field: Field, values: Arrays) -> NDArray[np.generic]:
    """The array of a field.

    Raises:
        IntegrityError: it is missing or has another shape than its field.
    """
    array = values.get(field.name)
    if array is None or array.shape != field.shape:
        wrong = "missing" if array is None else f"of shape {list(array.shape)}"
        raise IntegrityError(
            f"value {field.name} is {wrong}", allowed=f"shape {list(field.shape)}", refusal=RefusalCode.INTERNAL
        )
    return array


def encode(
    fields: Sequence[Field], values: Arrays, scales: Mapping[str, float], *, sites: int, weight: float
) -> NDArray[np.int64]:
    """All fields in order as one vector of integers, [word]; a wide field as its high words, then its low ones.

    Args:
        fields: of the vector.
        values: by name, each in its field's shape.
        scales: steps per unit by name, of the high word where the field is wide.
        sites: the most that can be summed.
        weight: of this site, in (0, 1].

    Raises:
        IntegrityError: an array is missing or has another shape than its field.
    """
    found, start = np.empty(sum(field.size for field in fields), np.int64), 0
    for field in fields:
        array = value_of(field, values)
        factor, bits = weight if field.weighted else 1.0, low_bits(sites) if field.wide else 0
        flat, step = np.ascontiguousarray(array).reshape(-1), scales[field.name] * 2.0**bits
        for place in range(0, len(flat), BLOCK):
            steps = quantize(flat[place : place + BLOCK], field.bound, step, weight=factor)
            at = start + place
            found[at : at + len(steps)] = steps >> bits
            if field.wide:
                found[at + len(flat) : at + len(flat) + len(steps)] = steps & ((1 << bits) - 1)
        start += field.size
    return found


def decode(
    fields: Sequence[Field], total: NDArray[np.int64], scales: Mapping[str, float], *, sites: int
) -> dict[str, NDArray[np.float64]]:
    """The sums of all fields, in their own units; arguments as for `encode`.

    Raises:
        IntegrityError: the vector has another length than the fields.
    """
    if len(total) != sum(field.size for field in fields):
        raise IntegrityError(f"a sum of {len(total)} words", allowed=f"{sum(field.size for field in fields)} words")
    found, start = {}, 0
    for field in fields:
        part = total[start : start + field.size].astype(np.float64)
        start += field.size
        if field.wide:
            high, low = np.split(part, 2)
            part = high + low / 2.0 ** low_bits(sites)
        found[field.name] = (part / scales[field.name]).reshape(field.shape)
    return found
