"""Names that nobody hands out: a site or federation is named by its key, a run by a ULID.

Source: https://github.com/ulid/spec (48 bits of milliseconds, 80 random bits, Crockford's base 32).
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable

from fedsite.protocol.errors import DocumentError

ID_BYTES = 16
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ID = re.compile(r"[0-9a-f]{32}")
_HASH = re.compile(r"[0-9a-f]{64}")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def site_id(public_key: bytes) -> str:
    """First 128 bits of SHA-256 of a raw Ed25519 public key (32 bytes), in hex."""
    return hashlib.sha256(public_key).hexdigest()[: 2 * ID_BYTES]


def id_bytes(text: str) -> bytes:
    """The 16 bytes of a site or federation id.

    Raises:
        DocumentError: not 32 lower-case hex digits.
    """
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise DocumentError(f"id {text!r:.80}", allowed="32 lower-case hex digits")
    return bytes.fromhex(text)


def hash_bytes(text: str) -> bytes:
    """The 32 bytes of a SHA-256 in a document.

    Raises:
        DocumentError: not 64 lower-case hex digits.
    """
    if not isinstance(text, str) or not _HASH.fullmatch(text):
        raise DocumentError(f"hash {text!r:.80}", allowed="64 lower-case hex digits")
    return bytes.fromhex(text)


def ulid(clock: Callable[[], float] = time.time, random: Callable[[int], bytes] = os.urandom) -> str:
    """A new run id, sortable by time.

    Args:
        clock: seconds since 1970.
        random: n random bytes.
    """
    value = (int(clock() * 1000) & (2**48 - 1)) << 80 | int.from_bytes(random(10), "big")
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))


def run_bytes(text: str) -> bytes:
    """The 16 bytes of a run id; only the canonical spelling is taken, so that a run has one name (and one path).

    Raises:
        DocumentError: not a ULID.
    """
    if not isinstance(text, str) or not _ULID.fullmatch(text):
        raise DocumentError(f"run id {text!r:.80}", allowed="a ULID: 26 of 0-9 and A-Z without I, L, O, U")
    value = 0
    for character in text:
        value = value << 5 | _ALPHABET.index(character)
    return value.to_bytes(ID_BYTES, "big")


def run_id(data: bytes) -> str:
    """The run id of 16 bytes: the inverse of `run_bytes`.

    Raises:
        DocumentError: not 16 bytes.
    """
    if len(data) != ID_BYTES:
        raise DocumentError(f"run id of {len(data)} bytes", allowed=f"{ID_BYTES} bytes")
    value = int.from_bytes(data, "big")
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))
