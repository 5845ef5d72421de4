"""Messages between the agent and its worker: a JSON header and named byte strings, each with its length before it.

Never pickle: the worker is ours, but what it works on came from the centre.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_HEADER = 16 << 20  # bytes
MAX_BLOB = 2 << 30  # bytes
_LENGTHS = struct.Struct(">IQ")


class PipeError(Exception):
    """The other end closed the pipe or sent something that is no message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One request or answer."""

    header: dict[str, Any]
    blobs: Mapping[str, bytes] = field(default_factory=dict)


def encode(message: Message) -> list[bytes]:
    """The byte strings to write, in order; blobs are not copied."""
    sizes = [[name, len(blob)] for name, blob in message.blobs.items()]
    header = json.dumps({"header": message.header, "blobs": sizes}).encode("utf-8")
    return [_LENGTHS.pack(len(header), sum(size for _, size in sizes)), header, *message.blobs.values()]


def decode(read: Callable[[int], bytes]) -> Message:
    """Read one message.

    Args:
        read: gives exactly the number of bytes asked for, or fewer when the pipe is closed.

    Raises:
        PipeError: closed in between, or not a message.
    """
    header_length, blob_length = _LENGTHS.unpack(_exactly(read, _LENGTHS.size))
    if header_length > MAX_HEADER or blob_length > MAX_BLOB:
        raise PipeError(f"message of {header_length} + {blob_length} bytes")
    try:
        value = json.loads(_exactly(read, header_length))
        blobs = {str(name): _exactly(read, int(size)) for name, size in value["blobs"]}
        return Message(header=dict(value["header"]), blobs=blobs)
    except (ValueError, TypeError, KeyError):
        raise PipeError("not a message") from None


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    data = read(count)
    if len(data) != count:
        raise PipeError("the pipe was closed")
    return data
