"""What a rule about an ONNX operation reads: its operands' shapes, its attributes, and the ways to say no."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedsite.models.onnx_reader import Node, Tensor
from fedsite.protocol.errors import IntegrityError

Shape = tuple[int, ...]
_MOST_VALUES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What an operation gives: its outputs, its multiplications or moves, and numbers held only while it runs."""

    outputs: tuple[Tensor, ...]
    work: int
    scratch: int = 0


Rule = Callable[[Node, Sequence[Tensor | None]], Effect]


def refused(node: Node, reason: str) -> IntegrityError:
    """The error for an operation that no model of ours has."""
    return IntegrityError(
        f"the model has {node.operator:.40} with {reason}", allowed="what fedsite's own export writes"
    )


def moved(shape: Shape, values: tuple[int, ...] | None = None) -> Effect:
    """An operation that only puts numbers elsewhere."""
    held = values if values is not None and len(values) <= _MOST_VALUES else None
    return Effect(outputs=(Tensor(shape=shape, values=held),), work=math.prod(shape))


def operand(node: Node, inputs: Sequence[Tensor | None], index: int) -> Tensor:
    """An input that must be there."""
    found = inputs[index] if index < len(inputs) else None
    if found is None:
        raise refused(node, f"input {index} missing")
    return found


def integers_of(node: Node, inputs: Sequence[Tensor | None], index: int) -> tuple[int, ...]:
    """The integers of a shape, known before anything runs."""
    found = operand(node, inputs, index)
    if found.values is None or len(found.shape) > 1:
        raise refused(node, "a shape that depends on data")
    return found.values


def integer(node: Node, name: str, default: int | None) -> int:
    """An integer attribute; required where `default` is None."""
    value = node.attributes.get(name, default)
    if not isinstance(value, int):
        raise refused(node, f"attribute {name} missing or of another kind")
    return value


def integers(node: Node, name: str, default: Shape) -> Shape:
    """An attribute of several integers."""
    value = node.attributes.get(name, default)
    if not isinstance(value, tuple):
        raise refused(node, f"attribute {name} of another kind")
    return value


def axis_of(node: Node, axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < rank:
        raise refused(node, f"axis {axis} of {rank}")
    return axis % rank


def broadcast(node: Node, first: Shape, second: Shape) -> Shape:
    """The shape of two tensors met number by number."""
    longer, shorter = sorted((first, second), key=len, reverse=True)
    padded = (1,) * (len(longer) - len(shorter)) + shorter
    if any(a != b and 1 not in (a, b) for a, b in zip(longer, padded, strict=True)):
        raise refused(node, "shapes that do not fit")
    return tuple(b if a == 1 else a for a, b in zip(longer, padded, strict=True))
