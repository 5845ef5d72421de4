"""Arrays on the wire: safetensors with sorted names. Never pickle, in any direction.

Source: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from fedsite.protocol.errors import DocumentError, IntegrityError, RefusalCode

Arrays = dict[str, NDArray[Any]]

MAX_NAME = 512  # characters
_DTYPES = frozenset(
    f"{kind}{bits}"
    for kind, sizes in {"int": (8, 16, 32, 64), "uint": (8, 16, 32, 64), "float": (16, 32, 64)}.items()
    for bits in sizes
) | {"bool"}


def encode(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The canonical bytes: equal arrays give equal bytes, whatever their memory layout or order in the mapping.

    Raises:
        DocumentError: a dtype or a name that does not travel.
    """
    ordered: Arrays = {}
    for name in sorted(arrays):
        value = np.asarray(arrays[name])
        if value.dtype.name not in _DTYPES or value.dtype.kind not in "biuf":
            raise DocumentError(f"array {name!r} of {value.dtype}", allowed="bool, integers, float16/32/64")
        if not name or len(name) > MAX_NAME or name == "__metadata__" or not name.isprintable():
            raise DocumentError(f"array name {name!r:.80}", allowed=f"1 to {MAX_NAME} printable characters")
        ordered[name] = np.require(value, dtype=value.dtype.newbyteorder("<"), requirements="C")
    return safetensors.save(ordered)


def decode(data: bytes, *, limit: int, finite: bool = True) -> Arrays:
    """The arrays in `data`.

    Args:
        data: canonical bytes.
        limit: the largest size taken, in bytes; checked before anything is read.
        finite: refuse NaN and infinity.

    Raises:
        IntegrityError: too large, not safetensors, a value that is not finite.
    """
    if len(data) > limit:
        raise IntegrityError(
            f"arrays of {len(data)} bytes", allowed=f"at most {limit} bytes", refusal=RefusalCode.TOO_LARGE
        )
    try:
        arrays: Arrays = safetensors.load(bytes(data))
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise IntegrityError(
            f"not a safetensors file ({type(error).__name__})", allowed="arrays written by fedsite"
        ) from None
    for name, value in arrays.items():
        if value.dtype.name not in _DTYPES:
            raise IntegrityError(f"array {name!r:.80} of {value.dtype}", allowed="bool, integers, float16/32/64")
    if finite:
        check_finite(arrays)
    return {name: arrays[name] for name in sorted(arrays)}


def check_finite(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse NaN and infinity.

    Raises:
        IntegrityError: names the array.
    """
    for name, value in arrays.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise IntegrityError(f"array {name!r:.80} holds NaN or infinity", allowed="finite numbers")


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of the canonical bytes, hex."""
    return hashlib.sha256(encode(arrays)).hexdigest()
