"""The operators that multiply or sum: what shape they give, how many multiplications, and what they hold meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedsite.models.onnx_operands import (
    Effect,
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


def conv(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    x, weight = operand(node, inputs, 0).shape, operand(node, inputs, 1).shape
    spatial, group = len(x) - 2, integer(node, "group", 1)
    if spatial < 1 or len(weight) != len(x) or group < 1 or node.attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise refused(node, "shapes that do not fit")
    kernel = integers(node, "kernel_shape", weight[2:])
    strides = integers(node, "strides", (1,) * spatial)
    dilations = integers(node, "dilations", (1,) * spatial)
    pads = integers(node, "pads", (0,) * 2 * spatial)
    if kernel != weight[2:] or x[1] != weight[1] * group or weight[0] % group or len(pads) != 2 * spatial:
        raise refused(node, "shapes that do not fit")
    if len(strides) != spatial or len(dilations) != spatial or min(*strides, *dilations, *kernel, 1) < 1:
        raise refused(node, f"strides {strides}, dilations {dilations}")
    if min(pads) < 0:
        raise refused(node, f"pads {pads}")
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    out = tuple(
        (x[2 + index] + pads[index] + pads[spatial + index] - reach[index]) // strides[index] + 1
        for index in range(spatial)
    )
    if min(out) < 1:
        raise refused(node, "a kernel larger than what it slides over")
    shape = (x[0], weight[0], *out)
    each = weight[1] * math.prod(kernel)
    return Effect(outputs=(Tensor(shape=shape),), work=math.prod(shape) * each, scratch=group * each * math.prod(out))


def pool(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    """Squares side by side over an image: what is not on the grid they make is left out, nothing is added around it."""
    x = operand(node, inputs, 0).shape
    spatial = len(x) - 2
    kernel = integers(node, "kernel_shape", ())
    strides = integers(node, "strides", (1,) * spatial)
    auto = node.attributes.get("auto_pad", b"NOTSET")
    if spatial < 1 or auto != b"NOTSET" or len(node.outputs) != 1 or not len(kernel) == len(strides) == spatial:
        raise refused(node, "shapes that do not fit")
    if min(*kernel, *strides) < 1 or any(integers(node, "pads", ())) or integer(node, "ceil_mode", 0):
        raise refused(node, f"kernel {kernel}, strides {strides}, or a border")
    if set(integers(node, "dilations", (1,) * spatial)) != {1} or integer(node, "storage_order", 0):
        raise refused(node, "dilations")
    out = tuple((size - side) // step + 1 for size, side, step in zip(x[2:], kernel, strides, strict=True))
    if min(out) < 1:
        raise refused(node, "a kernel larger than what it slides over")
    shape = (*x[:2], *out)
    return Effect(outputs=(Tensor(shape=shape),), work=math.prod(shape) * math.prod(kernel))


def gemm(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    a, b = operand(node, inputs, 0).shape, operand(node, inputs, 1).shape
    if len(a) != 2 or len(b) != 2:
        raise refused(node, "shapes that do not fit")
    a = a[::-1] if integer(node, "transA", 0) else a
    b = b[::-1] if integer(node, "transB", 0) else b
    shape = (a[0], b[1])
    if a[1] != b[0] or (len(inputs) > 2 and broadcast(node, shape, operand(node, inputs, 2).shape) != shape):
        raise refused(node, "shapes that do not fit")
    return Effect(outputs=(Tensor(shape=shape),), work=math.prod(shape) * a[1])


def matmul(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    a, b = operand(node, inputs, 0).shape, operand(node, inputs, 1).shape
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        raise refused(node, "shapes that do not fit")
    shape = (*broadcast(node, a[:-2], b[:-2]), a[-2], b[-1])
    return Effect(outputs=(Tensor(shape=shape),), work=math.prod(shape) * a[-1])


def reduce(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    shape = operand(node, inputs, 0).shape
    given = integers_of(node, inputs, 1) if len(inputs) > 1 and inputs[1] is not None else ()
    if not given and integer(node, "noop_with_empty_axes", 0):
        return moved(shape)
    axes = {axis_of(node, axis, len(shape)) for axis in given} or set(range(len(shape)))
    keep = bool(integer(node, "keepdims", 1))
    reduced = tuple(1 if index in axes else size for index, size in enumerate(shape) if keep or index not in axes)
    return Effect(outputs=(Tensor(shape=reduced),), work=math.prod(shape))


def resize(node: Node, inputs: Sequence[Tensor | None]) -> Effect:
    shape, sizes = operand(node, inputs, 0).shape, integers_of(node, inputs, 3)
    stretched = node.attributes.get("keep_aspect_ratio_policy", b"stretch") == b"stretch"
    if inputs[2] is not None or not stretched or len(sizes) != len(shape) or min(sizes, default=1) < 1:
        raise refused(node, "scales, or sizes that do not fit")
    return moved(sizes)
