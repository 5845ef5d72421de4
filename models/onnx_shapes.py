"""The operators that our export, its taps and its int8 form are made of, each with the shape and the work it gives.

A rule takes the shapes that come in, as numbers, and says exactly which go out, so that nothing is allocated to find
out. Where a shape is itself computed (Shape, Gather, Concat, Reshape) its integers are followed along. Whatever a rule
cannot say for certain is refused.
Source: ONNX operator reference, opsets 13 to 23; `models/onnx_reader.py` for what a node is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedsite.models import onnx_products as products
from fedsite.models.onnx_operands import (
    Effect,
    Rule,
    axis_of,
    broadcast,
    integer,
    integers,
    integers_of,
    moved,
    operand,
    refused,
)
from fedsite.models.onnx_reader import Node, Tensor


def _same(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    return moved(operand(node, inputs, 0).shape)


def _kept(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    first = operand(node, inputs, 0)
    return moved(first.shape, first.values)


def _together(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    return moved(broadcast(node, operand(node, inputs, 0).shape, operand(node, inputs, 1).shape))


def _concat(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    parts = [operand(node, inputs, index) for index in range(len(inputs))]
    first = operand(node, inputs, 0).shape
    axis = axis_of(node, integer(node, "axis", None), len(first))
    if any(_without(part.shape, axis) != _without(first, axis) or len(part.shape) != len(first) for part in parts):
        raise refused(node, "shapes that do not fit")
    shape = (*first[:axis], sum(part.shape[axis] for part in parts), *first[axis + 1 :])
    joined = [part.values for part in parts if part.values is not None]
    values = (
        tuple(value for some in joined for value in some) if len(joined) == len(parts) and len(shape) == 1 else None
    )
    return moved(shape, values)


def _expand(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    target = integers_of(node, inputs, 1)
    if any(size < 1 for size in target):
        raise refused(node, f"shape {target}")
    return moved(broadcast(node, operand(node, inputs, 0).shape, target))


def _gather(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    data, index = operand(node, inputs, 0), operand(node, inputs, 1)
    axis = axis_of(node, integer(node, "axis", 0), len(data.shape))
    values = None
    if data.values is not None and index.values is not None and len(data.shape) == 1:
        if any(not -len(data.values) <= at < len(data.values) for at in index.values):
            raise refused(node, "an index out of range")
        values = tuple(data.values[at] for at in index.values)
    return moved((*data.shape[:axis], *index.shape, *data.shape[axis + 1 :]), values)


def _reshape(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    data, target = operand(node, inputs, 0), list(integers_of(node, inputs, 1))
    for index, size in enumerate(target):
        if size == 0 and not integer(node, "allowzero", 0):
            if index >= len(data.shape):
                raise refused(node, "shapes that do not fit")
            target[index] = data.shape[index]
    count = math.prod(data.shape)
    if target.count(-1) == 1:
        known = math.prod(size for size in target if size != -1)
        if known < 1 or count % known:
            raise refused(node, "shapes that do not fit")
        target[target.index(-1)] = count // known
    if any(size < 0 for size in target) or math.prod(target) != count:
        raise refused(node, "shapes that do not fit")
    return moved(tuple(target), data.values)


def _shape(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    shape = operand(node, inputs, 0).shape
    part = shape[integer(node, "start", 0) : integer(node, "end", len(shape))]
    return moved((len(part),), part)


def _slice(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    data = operand(node, inputs, 0)
    starts, ends = integers_of(node, inputs, 1), integers_of(node, inputs, 2)
    axes = integers_of(node, inputs, 3) if len(inputs) > 3 else tuple(range(len(starts)))
    steps = integers_of(node, inputs, 4) if len(inputs) > 4 else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise refused(node, "bounds that do not fit")
    chosen = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen[axis_of(node, axis, len(data.shape))] = slice(start, end, step)
    shape = tuple(
        len(range(*chosen[index].indices(size))) if index in chosen else size for index, size in enumerate(data.shape)
    )
    single = data.values is not None and len(data.shape) == 1
    return moved(shape, data.values[chosen.get(0, slice(None))] if single and data.values is not None else None)


def _split(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    shape = operand(node, inputs, 0).shape
    axis = axis_of(node, integer(node, "axis", 0), len(shape))
    parts = len(node.outputs)
    if len(inputs) > 1:
        sizes = list(integers_of(node, inputs, 1))
    else:
        size = -(-shape[axis] // max(parts, 1))
        sizes = [*[size] * (parts - 1), shape[axis] - size * (parts - 1)]
    fits = len(sizes) == parts and sum(sizes) == shape[axis] and min(sizes) >= 0
    if not fits or integer(node, "num_outputs", parts) != parts:
        raise refused(node, "parts that do not fit")
    outputs = tuple(Tensor(shape=(*shape[:axis], size, *shape[axis + 1 :])) for size in sizes)
    return Effect(outputs=outputs, work=math.prod(shape))


def _squeeze(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    data = operand(node, inputs, 0)
    axes = {axis_of(node, axis, len(data.shape)) for axis in integers_of(node, inputs, 1)}
    axes = axes or {index for index, size in enumerate(data.shape) if size == 1}
    if any(data.shape[axis] != 1 for axis in axes):
        raise refused(node, "an axis that is not 1")
    return moved(tuple(size for index, size in enumerate(data.shape) if index not in axes), data.values)


def _transpose(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    shape = operand(node, inputs, 0).shape
    order = integers(node, "perm", tuple(range(len(shape)))[::-1])
    if sorted(order) != list(range(len(shape))):
        raise refused(node, f"axes {order[:8]}")
    return moved(tuple(shape[axis] for axis in order))


def _unsqueeze(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    data, given = operand(node, inputs, 0), integers_of(node, inputs, 1)
    rank = len(data.shape) + len(given)
    axes = {axis_of(node, axis, rank) for axis in given}
    if len(axes) != len(given):
        raise refused(node, "an axis twice")
    rest = iter(data.shape)
    return moved(tuple(1 if index in axes else next(rest) for index in range(rank)), data.values)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


_RESIZE = (
    "antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "extrapolation_value",
    "keep_aspect_ratio_policy", "mode", "nearest_mode",
)  # fmt: skip

_POOL = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides")

# Operator -> its rule, and the attributes that it may have. Scan, the only one with a graph, is in onnx_limits.
RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "Add": (_together, ()),
    "Concat": (_concat, ("axis",)),
    "Conv": (products.conv, ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")),
    "DequantizeLinear": (_same, ("axis",)),
    "Expand": (_expand, ()),
    "Gather": (_gather, ("axis",)),
    "Gemm": (products.gemm, ("alpha", "beta", "transA", "transB")),
    "Identity": (_kept, ()),
    "InstanceNormalization": (_same, ("epsilon",)),
    "LeakyRelu": (_same, ("alpha",)),
    "MatMul": (products.matmul, ()),
    "MaxPool": (products.pool, _POOL),
    "Mul": (_together, ()),
    "QuantizeLinear": (_same, ("axis",)),
    "ReduceMean": (products.reduce, ("keepdims", "noop_with_empty_axes")),
    "Relu": (_same, ()),
    "Reshape": (_reshape, ("allowzero",)),
    "Resize": (products.resize, _RESIZE),
    "Shape": (_shape, ("end", "start")),
    "Sigmoid": (_same, ()),
    "Slice": (_slice, ()),
    "Split": (_split, ("axis", "num_outputs")),
    "Squeeze": (_squeeze, ()),
    "Sub": (_together, ()),
    "Tanh": (_same, ()),
    "Transpose": (_transpose, ("perm",)),
    "Unsqueeze": (_unsqueeze, ()),
}
