"""Reading what an ONNX file says about itself without the `onnx` package: a device has only the runtime.

Source: onnx.proto3 (ModelProto 1 ir_version, 7 graph, 8 opset_import; TensorProto 14 data_location), in the wire format
of Protocol Buffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedsite.protocol.errors import IntegrityError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_DEEPEST = 16
_EXTERNAL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a model needs of a runtime."""

    ir_version: int
    opsets: dict[str, int]  # operator domain -> version; "" is ONNX itself
    external: bool  # a tensor's numbers lie in another file


def read(data: bytes) -> Header:
    """Read the header of an ONNX model.

    Raises:
        IntegrityError: the bytes are not an ONNX model.
    """
    ir_version, opsets, external, graphs = 0, dict[str, int](), False, 0
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            ir_version = value
        elif number == 7 and isinstance(value, bytes):
            graphs += 1
            external = external or _graph_is_external(value, 0)
        elif number == 8 and isinstance(value, bytes):
            domain, version = "", 0
            for inner, content in _fields(value):
                if inner == 1 and isinstance(content, bytes):
                    domain = content.decode("utf-8", "replace")
                elif inner == 2 and isinstance(content, int):
                    version = content
            opsets[domain] = version
    if graphs != 1 or not opsets or not ir_version:
        raise _not_onnx("no graph" if not graphs else "no operator set")
    return Header(ir_version=ir_version, opsets=opsets, external=external)


def _graph_is_external(data: bytes, depth: int) -> bool:
    if depth > _DEEPEST:
        raise _not_onnx("graphs nested too deep")
    for number, value in _fields(data):
        if not isinstance(value, bytes):
            continue
        if number == 5 and _tensor_is_external(value):
            return True
        if number == 1 and any(
            _attribute_is_external(content, depth)
            for inner, content in _fields(value)
            if inner == 5 and isinstance(content, bytes)
        ):
            return True
    return False


def _attribute_is_external(data: bytes, depth: int) -> bool:
    for number, value in _fields(data):
        if number == 5 and isinstance(value, bytes) and _tensor_is_external(value):
            return True
        if number == 6 and isinstance(value, bytes) and _graph_is_external(value, depth + 1):
            return True
    return False


def _tensor_is_external(data: bytes) -> bool:
    return any(number == 14 and value == _EXTERNAL for number, value in _fields(data))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field number and content of each field of one message."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == _BYTES:
            size, position = _varint(data, position)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise _not_onnx(f"wire type {kind}")
        if number == 0 or position + size > len(data):
            raise _not_onnx("cut short")
        yield number, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise _not_onnx("cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _not_onnx("a number without end")


def _not_onnx(reason: str) -> IntegrityError:
    return IntegrityError(
        f"the bytes are not an ONNX model ({reason})",
        allowed="a model of this federation's release",
        next_step="fedsite model status shows which slot holds a good one",
    )
