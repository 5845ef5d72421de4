"""What travels in the blobs of SA-1's stages: sets as bitmaps, shares and signatures in the order of their sites.

Both ends know the order of every list, so that nothing but the content travels. Whatever does not have exactly the
length it must have is refused before a byte of it is read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from fedsite.protocol.errors import IntegrityError, RefusalCode

OPENED_BYTES: Final = 33  # x ‖ share
NOTHING: Final = bytes(OPENED_BYTES)  # stands for a share that does not open: no holder has x = 0


def pack_set(sites: Collection[bytes], whole: Sequence[bytes]) -> bytes:
    """A part of `whole` as a bitmap, first site in the highest bit of the first byte."""
    part, bits = set(sites), bytearray((len(whole) + 7) // 8)
    for place, site in enumerate(whole):
        if site in part:
            bits[place // 8] |= 0x80 >> place % 8
    return bytes(bits)


def unpack_set(data: bytes, whole: Sequence[bytes]) -> tuple[bytes, ...]:
    """The inverse of `pack_set`.

    Raises:
        IntegrityError: of another length, or with bits that stand for nobody.
    """
    _length(data, (len(whole) + 7) // 8, "a set")
    found = tuple(site for place, site in enumerate(whole) if data[place // 8] & 0x80 >> place % 8)
    if pack_set(found, whole) != data:
        raise _wrong("a set with bits beyond its last site", "0 there")
    return found


def pack_items(items: Mapping[bytes, bytes]) -> bytes:
    """Byte strings of one length, one after the other, by their sites' ids."""
    return b"".join(items[site] for site in sorted(items))


def unpack_items(data: bytes, sites: Collection[bytes], size: int, what: str) -> dict[bytes, bytes]:
    """The inverse of `pack_items`: one item of `size` bytes for each of `sites`.

    Raises:
        IntegrityError: of another length.
    """
    _length(data, size * len(sites), what)
    return {site: data[place * size : (place + 1) * size] for place, site in enumerate(sorted(sites))}


def pack_opened(opened: Mapping[bytes, bytes], sources: Collection[bytes]) -> bytes:
    """Opened shares of `sources`; where one is missing, `NOTHING`."""
    return pack_items({source: opened.get(source, NOTHING) for source in sources})


def unpack_opened(data: bytes, sources: Collection[bytes]) -> dict[bytes, bytes]:
    """The inverse of `pack_opened`.

    Raises:
        IntegrityError: of another length.
    """
    found = unpack_items(data, sources, OPENED_BYTES, "opened shares")
    return {source: item for source, item in found.items() if item != NOTHING}


def split(data: bytes, size: int, what: str) -> tuple[bytes, bytes]:
    """The first `size` bytes, and the rest.

    Raises:
        IntegrityError: there are fewer.
    """
    if len(data) < size:
        raise _wrong(f"{what} of {len(data)} bytes", f"at least {size}")
    return data[:size], data[size:]


def _length(data: bytes, wanted: int, what: str) -> None:
    if len(data) != wanted:
        raise _wrong(f"{what} of {len(data)} bytes", f"{wanted} bytes")


def _wrong(found: str, allowed: str) -> IntegrityError:
    return IntegrityError(found, allowed=allowed, refusal=RefusalCode.MALFORMED)
