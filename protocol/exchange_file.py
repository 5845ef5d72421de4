"""Messages that people carry: one signed file of frames and of what they need. It is whole, or it is refused.

A file is the line `fedsite.exchange/1`, the head's length (8 bytes), the head and its parts one after another. The head
is a signed document (envelope.py) with the digest and length of every part, so one signature covers the file. The
frames in it are those of the wire, each with a signature of its own, and are checked again where they are used.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from fedsite.protocol import documents, envelope, ids, instants, shape
from fedsite.protocol.errors import DocumentError, IntegrityError, RefusalCode, TrustError
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey, VerifyKey, unbase64
from fedsite.protocol.messages import Frame

SCHEMA: Final = "fedsite.exchange/1"
MAX_FILE: Final = 1 << 30  # bytes
MAX_HEAD: Final = 4 << 20
MAX_FRAMES: Final = 256
_MAGIC: Final = f"{SCHEMA}\n".encode()
_LABEL: Final = "fedsite/sig/exchange/1"
_LENGTH: Final = struct.Struct(">Q")
_AGAIN: Final = "copy it again from where it was exported"

Direction = Literal["instructions", "replies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes of the file."""

    sha256: str  # hex
    size: int  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A frame in terms of parts, each named by its digest: what several frames share is there once."""

    header: str
    signature: str  # base64
    blobs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a file says of itself."""

    schema: Literal["fedsite.exchange/1"] = SCHEMA
    direction: Direction
    federation: str  # id, hex
    site_id: str  # whom it is for, or whose it is; hex
    sequence: int  # of this sender to this receiver; rises
    created: str  # RFC 3339
    expires: str  # RFC 3339: nothing in it counts any more
    frames: tuple[Entry, ...]
    files: dict[str, str]  # path of a release's file -> part
    parts: tuple[Part, ...]  # in the order they stand in

    def __post_init__(self) -> None:
        ids.id_bytes(self.federation)
        ids.id_bytes(self.site_id)
        if not 1 <= self.sequence <= documents.MAX_INTEGER:
            raise DocumentError(f"sequence {self.sequence}", allowed=f"1 to {documents.MAX_INTEGER}")
        if len(self.frames) > MAX_FRAMES:
            raise DocumentError(f"{len(self.frames)} messages in one file", allowed=f"at most {MAX_FRAMES}")
        instants.read(self.created)
        instants.read(self.expires)
        known = {part.sha256 for part in self.parts}
        named = {digest for entry in self.frames for digest in (entry.header, *entry.blobs.values())}
        if len(known) != len(self.parts) or named | set(self.files.values()) != known:
            raise DocumentError("the parts are not those that the messages name", allowed="each part once")
        if any(part.size < 0 for part in self.parts):
            raise DocumentError("a part of less than no bytes", allowed="0 and more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A file that was checked."""

    head: Head
    digest: str  # SHA-256 of the signed head, hex: names this very file
    frames: tuple[Frame, ...]
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Whose file it is, which one, and how long it counts."""

    direction: Direction
    federation: str
    site_id: str
    sequence: int
    created: datetime
    expires: datetime


def pack(address: Address, frames: Sequence[Frame], files: Mapping[str, bytes], key: SigningKey) -> bytes:
    """The bytes of a file.

    Raises:
        DocumentError: more than a file may hold.
    """
    parts: dict[str, bytes] = {}

    def part(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        parts[digest] = data
        return digest

    entries = tuple(
        Entry(
            header=part(frame.header),
            signature=base64.b64encode(frame.signature).decode("ascii"),
            blobs={name: part(blob) for name, blob in sorted(frame.blobs.items())},
        )
        for frame in frames
    )
    named = {path: part(data) for path, data in sorted(files.items())}
    head = Head(
        direction=address.direction,
        federation=address.federation,
        site_id=address.site_id,
        sequence=address.sequence,
        created=instants.text(address.created),
        expires=instants.text(address.expires),
        frames=entries,
        files=named,
        parts=tuple(Part(sha256=digest, size=len(data)) for digest, data in parts.items()),
    )
    signed = envelope.wrap(_LABEL, shape.plain(head), key)
    whole = b"".join([_MAGIC, _LENGTH.pack(len(signed)), signed, *parts.values()])
    if len(whole) > MAX_FILE or len(signed) > MAX_HEAD:
        raise DocumentError(
            f"a file of {len(whole)} bytes", allowed=f"at most {MAX_FILE}", refusal=RefusalCode.TOO_LARGE
        )
    return whole


def open_parcel(
    data: bytes, direction: Direction, federation: Federation, key_of: Callable[[str], VerifyKey], now: datetime
) -> Parcel:
    """Check a file as a whole; nothing of it is used before.

    Args:
        data: the file.
        direction: what it must bring.
        federation: ours.
        key_of: the key that must have signed, by the id of the site it is about; raises where there is no such site.
        now: UTC.

    Raises:
        DocumentError, IntegrityError: no such file, cut short, longer than it says, or changed.
        TrustError: another federation's, another site's, another signature, expired, or the other direction's.
    """
    head, digest, at = _head(data, direction, federation, key_of)
    if now >= instants.read(head.expires):
        raise TrustError(
            f"this file expired at {head.expires}",
            allowed=f"a later time than {instants.text(now)}",
            next_step="ask for a new file; compare the clocks of both ends (date -u)",
            refusal=RefusalCode.EXPIRED,
        )
    promised = at + sum(part.size for part in head.parts)
    if len(data) != promised:
        what = "is cut short" if len(data) < promised else "has more at its end than it says"
        raise _broken(f"this file {what}: {len(data)} bytes", f"{promised} bytes")
    parts: dict[str, bytes] = {}
    for part in head.parts:
        found = data[at : at + part.size]
        at += part.size
        if hashlib.sha256(found).hexdigest() != part.sha256:
            raise _broken("a part of this file was changed on its way", "the bytes that were signed")
        parts[part.sha256] = found
    frames = tuple(
        Frame(
            header=parts[entry.header],
            signature=unbase64(entry.signature, "signature of a message"),
            blobs={name: parts[digest] for name, digest in entry.blobs.items()},
        )
        for entry in head.frames
    )
    return Parcel(
        head=head, digest=digest, frames=frames, files={path: parts[name] for path, name in head.files.items()}
    )


def _head(
    data: bytes, direction: Direction, federation: Federation, key_of: Callable[[str], VerifyKey]
) -> tuple[Head, str, int]:
    """The checked head, its digest, and where the parts begin."""
    start = len(_MAGIC) + _LENGTH.size
    if not data.startswith(_MAGIC):
        if _MAGIC.startswith(data[: len(_MAGIC)]):
            raise _broken(f"this file is cut short: {len(data)} bytes", "a whole file")
        raise DocumentError("this is no file of messages", allowed=SCHEMA, next_step="fedsite exchange --help")
    if len(data) < start:
        raise _broken(f"this file is cut short: {len(data)} bytes", "a whole file")
    (length,) = _LENGTH.unpack_from(data, len(_MAGIC))
    if length > MAX_HEAD:
        raise _broken(f"a head of {length} bytes", f"at most {MAX_HEAD}")
    signed = data[start : start + length]
    if len(signed) < length:
        raise _broken(f"this file is cut short: {len(data)} bytes", "a whole file")
    value = documents.parse(signed, limit=MAX_HEAD)
    head = shape.read(Head, value.get("signed") if isinstance(value, dict) else None)
    if head.federation != federation.id:
        raise TrustError(
            f"this file is of federation {head.federation}",
            allowed=f"federation {federation.id}",
            next_step="take it to the host that it is for",
            refusal=RefusalCode.WRONG_SITE,
        )
    if head.direction != direction:
        raise TrustError(
            f"this file brings {head.direction}",
            allowed=direction,
            next_step="the server exports instructions, which a site imports; a site exports replies",
            refusal=RefusalCode.WRONG_SITE,
        )
    envelope.unwrap(_LABEL, signed, key_of(head.site_id), "file of messages", limit=MAX_HEAD)
    if signed != documents.canonical(value):
        raise _broken("the head of this file was written anew", "the bytes that were signed")
    return head, hashlib.sha256(signed).hexdigest(), start + length


def _broken(found: str, allowed: str) -> IntegrityError:
    return IntegrityError(found, allowed=allowed, next_step=_AGAIN, refusal=RefusalCode.MALFORMED)
