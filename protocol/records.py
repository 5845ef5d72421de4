"""Frames as Flower records: the one place where our messages take the shape of Flower's objects.

A small frame is a single ConfigRecord, because every object of a message may cost one HTTP call. A blob above `INLINE`
becomes a uint8 Array of an ArrayRecord: Flower cuts it into chunks, and stores equal ones (a broadcast model) once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedsite.protocol.errors import IntegrityError, RefusalCode
from fedsite.protocol.messages import MAX_BLOB, MAX_HEADER, Frame

if TYPE_CHECKING:
    from flwr.app import RecordDict

INLINE = 256 << 10  # bytes; a larger blob travels in an object of its own
MAX_FRAME = MAX_BLOB + MAX_HEADER  # bytes
MAX_BLOBS = 64  # blobs in one frame

_FRAME = "frame"
_BLOBS = "blobs"
_BLOB_KEY = "blob:"
_STYPE = "fedsite.bytes"


def to_record(frame: Frame) -> RecordDict:
    """The frame as records.

    Raises:
        IntegrityError: more blobs or larger ones than a receiver takes.
    """
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

    _check_size(len(frame.header), {name: len(blob) for name, blob in frame.blobs.items()}, MAX_FRAME)
    fields: dict[str, bytes] = {"header": bytes(frame.header), "signature": bytes(frame.signature)}
    large: dict[str, Array] = {}
    for name, blob in sorted(frame.blobs.items()):
        if len(blob) <= INLINE:
            fields[_BLOB_KEY + name] = bytes(blob)
        else:
            large[name] = Array(dtype="uint8", shape=(len(blob),), stype=_STYPE, data=bytes(blob))
    record = RecordDict({_FRAME: ConfigRecord(fields)})
    if large:
        record[_BLOBS] = ArrayRecord(large)
    return record


def from_record(record: RecordDict, *, limit: int = MAX_FRAME) -> Frame:
    """The frame in a message's content.

    Args:
        record: what the other end sent; nothing in it is trusted.
        limit: the largest frame taken, in bytes.

    Raises:
        IntegrityError: not a frame, or larger than `limit`.
    """
    from flwr.app import ArrayRecord, ConfigRecord

    config = record.get(_FRAME)
    arrays = record.get(_BLOBS)
    if not isinstance(config, ConfigRecord) or not (arrays is None or isinstance(arrays, ArrayRecord)):
        raise _malformed(f"records {sorted(record)[:4]}")
    if set(record) - {_FRAME, _BLOBS}:
        raise _malformed(f"records {sorted(record)[:4]}")
    header, signature = config.get("header"), config.get("signature")
    if not isinstance(header, bytes) or not isinstance(signature, bytes):
        raise _malformed("a frame without header or signature")
    blobs: dict[str, bytes] = {}
    for key, value in config.items():
        if key in ("header", "signature"):
            continue
        if not key.startswith(_BLOB_KEY) or not isinstance(value, bytes):
            raise _malformed(f"field {key[:32]!r}")
        blobs[key[len(_BLOB_KEY) :]] = value
    for name, array in (arrays or {}).items():
        if array.stype != _STYPE or array.dtype != "uint8" or name in blobs or array.shape != (len(array.data),):
            raise _malformed(f"array {name[:32]!r}")
        blobs[name] = array.data
    _check_size(len(header), {name: len(blob) for name, blob in blobs.items()}, limit)
    return Frame(header=header, signature=signature, blobs=blobs)


def _check_size(header: int, blobs: dict[str, int], limit: int) -> None:
    if len(blobs) > MAX_BLOBS:
        raise IntegrityError(
            f"{len(blobs)} blobs in one frame", allowed=f"at most {MAX_BLOBS}", refusal=RefusalCode.TOO_LARGE
        )
    total = header + sum(blobs.values())
    if header > MAX_HEADER or total > limit or any(size > MAX_BLOB for size in blobs.values()):
        raise IntegrityError(
            f"a frame of {total} bytes", allowed=f"at most {limit} bytes", refusal=RefusalCode.TOO_LARGE
        )


def _malformed(found: str) -> IntegrityError:
    return IntegrityError(f"{found} in a message", allowed="a fedsite frame", refusal=RefusalCode.MALFORMED)
