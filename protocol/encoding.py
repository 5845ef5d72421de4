"""`enc`: the one encoding under every hash, signature and key derivation of the protocol.

Length prefixes make it injective: two lists of fields never share an encoding. JSON documents have their own canonical
form (documents.py) and enter here as one field, their hash.
"""

from __future__ import annotations

import hashlib

from fedsite.protocol.errors import DocumentError

_MAX_LENGTH = 2**32 - 1


def enc(label: str, *fields: bytes | int) -> bytes:
    """The ASCII label, then each field as be32(length) ‖ bytes; an integer is be64.

    Raises:
        DocumentError: a label that is not ASCII, an integer outside 0 to 2^64 - 1.
    """
    if not label.isascii():
        raise DocumentError(f"label {label!r}", allowed="ASCII")
    parts = [label.encode("ascii")]
    for field in fields:
        data = be64(field) if isinstance(field, int) else bytes(field)
        if len(data) > _MAX_LENGTH:
            raise DocumentError(f"field of {len(data)} bytes", allowed=f"at most {_MAX_LENGTH} bytes")
        parts += (len(data).to_bytes(4, "big"), data)
    return b"".join(parts)


def be32(value: int) -> bytes:
    """Four bytes, most significant first.

    Raises:
        DocumentError: outside 0 to 2^32 - 1.
    """
    return _big_endian(value, 4)


def be64(value: int) -> bytes:
    """Eight bytes, most significant first.

    Raises:
        DocumentError: outside 0 to 2^64 - 1.
    """
    return _big_endian(value, 8)


def sha256(data: bytes) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(data).digest()


def _big_endian(value: int, width: int) -> bytes:
    try:
        return value.to_bytes(width, "big")
    except OverflowError:
        raise DocumentError(f"integer {value}", allowed=f"0 to 2^{8 * width} - 1") from None
