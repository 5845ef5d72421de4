"""Reading an ONNX file without the `onnx` package (a device has only the runtime); what is not known is refused.

Everything that no model of ours has is an error: functions, training graphs, sparse tensors, tensors in other files,
annotations, operators of other domains, a constant of another size than it says.
Source: onnx.proto3.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from fedsite.models import protobuf
from fedsite.models.protobuf import Kind, Message
from fedsite.protocol.errors import IntegrityError

_N, _F, _P, _PS, _NS, _FS = Kind.NUMBER, Kind.FLOAT, Kind.PART, Kind.PARTS, Kind.NUMBERS, Kind.FLOATS
_MODEL = {1: _N, 2: _P, 3: _P, 4: _P, 5: _N, 6: _P, 7: _P, 8: _PS}
_OPSET = {1: _P, 2: _N}
_GRAPH = {1: _PS, 2: _P, 5: _PS, 10: _P, 11: _PS, 12: _PS}
_NODE = {1: _PS, 2: _PS, 3: _P, 4: _P, 5: _PS, 6: _P, 7: _P}
_ATTRIBUTE = {1: _P, 2: _F, 3: _N, 4: _P, 6: _P, 7: _FS, 8: _NS, 13: _P, 20: _N}
_TENSOR = {1: _NS, 2: _N, 4: _FS, 5: _NS, 7: _NS, 8: _P, 9: _P, 12: _P}
_VALUE = {1: _P, 2: _P, 3: _P}
_TYPE = {1: _P}
_TENSOR_TYPE = {1: _N, 2: _P}
_SHAPE = {1: _PS}
_DIMENSION = {1: _N, 2: _P}

_MOST = 1 << 14  # operations, constants, inputs and outputs of a graph together
_RANK = 8
_DEEPEST = 2  # graphs: the model's own and the body of a Scan
_VALUES = 64  # integers of a constant that may be a shape
FLOAT, INT64 = 1, 7  # TensorProto.data_type
_BYTES = {FLOAT: 4, 2: 1, 3: 1, 6: 4, INT64: 8}  # of float, uint8, int8, int32, int64
_FIELDS = {1: 2, 2: 3, 3: 4, 5: 6, 6: 7, 7: 8}  # AttributeProto.type -> the field that holds such a value
_INT, _TEXT, _BODY, _INTS = 2, 3, 5, 7

Attribute = int | bytes | tuple[int, ...] | None  # None: floats, of which no shape depends


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A constant: its shape, and its integers where they may be a shape themselves."""

    shape: tuple[int, ...]
    values: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A graph's input or output: element type, and dimensions, None where one is free."""

    name: str
    kind: int
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation; `body` is the graph that a Scan runs."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    body: Graph | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Operations in the order in which they are written."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What a model needs of a runtime, and what it computes."""

    opsets: Mapping[str, int]  # operator domain -> version; "" is ONNX itself
    graph: Graph


def read(data: bytes) -> Model:
    """Read an ONNX model.

    Raises:
        IntegrityError: the bytes are not an ONNX model, or one with more in it than a model of ours has.
    """
    try:
        found = protobuf.read(memoryview(data), _MODEL)
        opsets: dict[str, int] = {}
        for item in found.parts(8):
            opset = protobuf.read(item, _OPSET)
            if opset.text(1) in opsets:
                raise _odd("two versions of one operator set")
            opsets[opset.text(1)] = opset.integer(2)
        if 7 not in found or not opsets or not found.integer(1):
            raise _not_onnx("no graph" if 7 not in found else "no operator set")
        return Model(opsets=opsets, graph=_graph(found.part(7), 1))
    except protobuf.WireError as error:
        raise _not_onnx(str(error)) from None
    except protobuf.FieldError as error:
        raise _odd("field {} of a message, {}".format(*error.args)) from None


def _graph(data: memoryview, depth: int) -> Graph:
    if depth > _DEEPEST:
        raise _odd("a graph within the body of a Scan")
    found = protobuf.read(data, _GRAPH, most=_MOST)
    constants = [_tensor(item) for item in found.parts(5)]
    if len(dict(constants)) != len(constants):
        raise _odd("two constants of one name")
    return Graph(
        nodes=tuple(_node(item, depth) for item in found.parts(1)),
        constants=dict(constants),
        inputs=tuple(_value(item) for item in found.parts(11)),
        outputs=tuple(_value(item).name for item in found.parts(12)),
    )


def _node(data: memoryview, depth: int) -> Node:
    found = protobuf.read(data, _NODE)
    if found.text(7):
        raise _odd(f"an operator of {found.text(7):.40}")
    attributes: dict[str, Attribute] = {}
    body: Graph | None = None
    for item in found.parts(5):
        attribute = protobuf.read(item, _ATTRIBUTE)
        name, kind = attribute.text(1), attribute.integer(20)
        if name in attributes or (name == "body" and body is not None):
            raise _odd(f"attribute {name:.40}, twice")
        if kind not in _FIELDS or attribute.numbers - {1, 13, 20} - {_FIELDS[kind]}:
            raise _odd(f"attribute {name:.40} of kind {kind}")
        if (kind == _BODY) != (name == "body"):
            raise _odd(f"attribute {name:.40} with a graph, or a body without")
        if kind == _BODY:
            body = _graph(attribute.part(6), depth + 1)
        else:
            attributes[name] = _attribute(attribute, kind)
    return Node(
        operator=found.text(4),
        inputs=tuple(str(item, "utf-8", "replace") for item in found.parts(1)),
        outputs=tuple(str(item, "utf-8", "replace") for item in found.parts(2)),
        attributes=attributes,
        body=body,
    )


def _attribute(found: Message, kind: int) -> Attribute:
    if kind == _INT:
        return found.integer(3)
    if kind == _TEXT:
        return bytes(found.part(4))
    return tuple(found.integers(8)) if kind == _INTS else None


def _tensor(data: memoryview) -> tuple[str, Tensor]:
    found = protobuf.read(data, _TENSOR)
    name, kind, shape = found.text(8), found.integer(2), tuple(found.integers(1))
    if kind not in _BYTES or len(shape) > _RANK or any(size < 0 for size in shape):
        raise _odd(f"constant {name:.40} of type {kind} and shape {list(shape)[:8]}")
    count, held = math.prod(shape), found.numbers & {4, 5, 7, 9}
    if count > len(data):
        raise _odd(f"constant {name:.40} of {count} numbers in {len(data)} bytes")
    values: tuple[int, ...] | None = None
    if held == {9}:
        whole = found.size(9) == count * _BYTES[kind]
        if whole and kind == INT64 and count <= _VALUES:
            values = struct.unpack(f"<{count}q", found.part(9))
    elif held == {4}:
        whole = kind == FLOAT and found.size(4) == 4 * count
    elif held == {7 if kind == INT64 else 5} and kind != FLOAT:
        numbers = found.integers(*held)
        whole, values = len(numbers) == count, tuple(numbers[:_VALUES]) if kind == INT64 else None
    else:
        whole, values = not held and not count, () if kind == INT64 else None
    if not whole:
        raise _odd(f"constant {name:.40} with other than the {count} numbers it says")
    return name, Tensor(shape=shape, values=values if count <= _VALUES else None)


def _value(data: memoryview) -> Value:
    found = protobuf.read(data, _VALUE)
    inner = protobuf.read(protobuf.read(found.part(2), _TYPE).part(1), _TENSOR_TYPE)
    dimensions = [protobuf.read(item, _DIMENSION) for item in protobuf.read(inner.part(2), _SHAPE).parts(1)]
    shape = tuple(item.integer(1) if 1 in item else None for item in dimensions)
    return Value(name=found.text(1), kind=inner.integer(1), shape=shape)


def _not_onnx(reason: str) -> IntegrityError:
    return IntegrityError(
        f"the bytes are not an ONNX model ({reason})",
        allowed="a model of this federation's release",
        next_step="fedsite model status shows which slot holds a good one",
    )


def _odd(found: str) -> IntegrityError:
    return IntegrityError(f"the model has {found}", allowed="what fedsite's own export writes")
