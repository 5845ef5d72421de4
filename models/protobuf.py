"""Protocol Buffers, read strictly: only fields that the caller names, in the one form that they have.

Parsers differ in what they make of a field that comes twice, has another wire type or is unknown; what is refused here
cannot mean one thing to us and another to the runtime.
Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}


class Kind(Enum):
    """What a field holds."""

    NUMBER = "one integer"
    FLOAT = "one float"
    PART = "one message or text"
    PARTS = "messages or texts"
    NUMBERS = "integers, packed or not"
    FLOATS = "floats, packed or not"


_WIRES = {
    Kind.NUMBER: (_VARINT,),
    Kind.FLOAT: (_FIXED32,),
    Kind.PART: (_BYTES,),
    Kind.PARTS: (_BYTES,),
    Kind.NUMBERS: (_VARINT, _BYTES),
    Kind.FLOATS: (_FIXED32, _BYTES),
}
_SINGLE = (Kind.NUMBER, Kind.FLOAT, Kind.PART)
_MOST_PACKED = 1 << 20  # bytes of packed integers; more would be many times as large in memory


class WireError(ValueError):
    """The bytes are no message."""


class FieldError(ValueError):
    """A message with a field that is not known, or not in this form; the arguments are its number and a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The fields of one message, by number."""

    values: dict[int, list[int]] = field(default_factory=dict)  # that came as integers
    pieces: dict[int, list[memoryview]] = field(default_factory=dict)  # that came as bytes

    def __contains__(self, number: int) -> bool:
        return number in self.values or number in self.pieces

    @property
    def numbers(self) -> set[int]:
        """The fields that are there."""
        return set(self.values) | set(self.pieces)

    def integer(self, number: int) -> int:
        """A signed 64-bit integer; 0 where it is left out."""
        return _signed(self.values[number][0]) if number in self.values else 0

    def single(self, number: int) -> float:
        """A float; 0 where it is left out."""
        return float(struct.unpack("<f", self.pieces[number][0])[0]) if number in self.pieces else 0.0

    def part(self, number: int) -> memoryview:
        """A message or text; empty where it is left out."""
        return self.pieces[number][0] if number in self.pieces else memoryview(b"")

    def parts(self, number: int) -> list[memoryview]:
        """All of a repeated field."""
        return self.pieces.get(number, [])

    def text(self, number: int) -> str:
        """A text; bytes that are none become other letters, so no known name."""
        return str(self.part(number), "utf-8", "replace")

    def integers(self, number: int) -> list[int]:
        """A repeated signed 64-bit integer.

        Raises:
            FieldError: partly packed and partly not, so that the order is lost, or too many. WireError: cut short.
        """
        if number in self.values and number in self.pieces:
            raise FieldError(number, "packed and not")
        if self.size(number) > _MOST_PACKED:
            raise FieldError(number, f"of {self.size(number)} bytes")
        found = list(self.values.get(number, []))
        for piece in self.pieces.get(number, []):
            at = 0
            while at < len(piece):
                value, at = _varint(piece, at)
                found.append(value)
        return [_signed(value) for value in found]

    def size(self, number: int) -> int:
        """Bytes of all pieces of a field together."""
        return sum(len(piece) for piece in self.pieces.get(number, []))


def read(data: memoryview, known: Mapping[int, Kind], *, most: int = 512) -> Message:
    """Read one message of at most `most` fields, counting repeated ones.

    Raises:
        WireError: cut short, or no message. FieldError: a field that is not `known`, not so, or one too many.
    """
    message = Message()
    for count, (number, wire, value) in enumerate(_fields(data)):
        kind = known.get(number)
        if count >= most:
            raise FieldError(number, f"one of more than {most}")
        if kind is None or wire not in _WIRES[kind]:
            raise FieldError(number, "unknown" if kind is None else f"not {kind.value}")
        if kind in _SINGLE and number in message:
            raise FieldError(number, "twice")
        if isinstance(value, int):
            message.values.setdefault(number, []).append(value)
        else:
            message.pieces.setdefault(number, []).append(value)
    return message


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview | int]]:
    """Number, wire type and content of each field."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise WireError(f"field {number}")
        if wire == _VARINT:
            value, position = _varint(data, position)
            yield number, wire, value
            continue
        if wire == _BYTES:
            size, position = _varint(data, position)
        elif wire in _FIXED:
            size = _FIXED[wire]
        else:
            raise WireError(f"wire type {wire}")
        if position + size > len(data):
            raise WireError("cut short")
        yield number, wire, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise WireError("cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, position
    raise WireError("a number without end")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
