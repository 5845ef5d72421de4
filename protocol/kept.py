"""What a host keeps on its disk between messages: frames as bytes, and files that tell when they were damaged."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

from fedsite.protocol.errors import IntegrityError, RefusalCode
from fedsite.protocol.messages import Frame
from fedsite.protocol.storage import storage_errors, write_atomic

_LENGTH = struct.Struct(">Q")
_DIGEST = hashlib.sha256().digest_size


def encode(frame: Frame) -> bytes:
    """A frame as one byte string: each part with its length before it."""
    parts = [frame.header, frame.signature]
    for name in sorted(frame.blobs):
        parts += [name.encode("utf-8"), frame.blobs[name]]
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def decode(data: bytes) -> Frame:
    """The inverse of `encode`.

    Raises:
        IntegrityError: cut short.
    """
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise IntegrityError("a stored message is cut short")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            raise IntegrityError("a stored message is cut short")
        parts.append(data[at : at + length])
        at += length
    if len(parts) < 2 or len(parts) % 2:
        raise IntegrityError("a stored message is cut short")
    names = [part.decode("utf-8") for part in parts[2::2]]
    return Frame(header=parts[0], signature=parts[1], blobs=dict(zip(names, parts[3::2], strict=True)))


def keep(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write with a digest before it: a disk that returns other bytes is found out before they are sent, or paid for.

    Args:
        path: replaced whole.
        data: what `checked` returns.
        durable: false: not worth waiting for the disk; it survives this process, and not a power cut.

    Raises:
        StorageError: the disk is full or read-only.
    """
    sealed = hashlib.sha256(data).digest() + data
    if durable:
        write_atomic(path, sealed)
        return
    new = path.with_suffix(".new")
    with storage_errors(path):
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(sealed)
        new.replace(path)


def checked(path: Path) -> bytes:
    """What `keep` wrote.

    Raises:
        IntegrityError: it is something else.
        StorageError: it cannot be read.
    """
    with storage_errors(path):
        data = path.read_bytes()
    if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
        raise damaged(path)
    return data[_DIGEST:]


def damaged(path: Path) -> IntegrityError:
    """What is raised where a file holds other bytes than were written."""
    return IntegrityError(
        f"{path} is damaged", allowed="what was written here", next_step="see the disk's log (dmesg)",
        refusal=RefusalCode.STORAGE,
    )  # fmt: skip
