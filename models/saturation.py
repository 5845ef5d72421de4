"""What a graph itself says of its activations' ranges: where tanh and sigmoid stop moving, and what they can give.

Eight bits over a tensor's whole range are lost on a tanh: of inputs from -45 to 45 only those between -3 and 3 matter,
and a step of a third of a unit is coarse there. Beyond these bounds the answer is within half a step of its end, so
clipping costs less than the rounding that follows. No data is needed for this, and noise cannot spoil it.
Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, appendix A.1: tables for tanh and logistic over a fixed input range. Server only.
"""

from __future__ import annotations

import math
from typing import Any

from fedsite.models.calibration import Ranges

_STEPS = 255.0
_TANH = math.atanh(1.0 - 1.0 / _STEPS)  # 3.12: one minus tanh is half of a step of [-1, 1]
_SIGMOID = math.log(2.0 * _STEPS - 1.0)  # 6.23: one minus sigmoid is half of a step of [0, 1]
_ENDS = {"Tanh": ((-_TANH, _TANH), (-1.0, 1.0)), "Sigmoid": ((-_SIGMOID, _SIGMOID), (0.0, 1.0))}


def bounds(model: Any) -> Ranges:
    """Bounds of tensors of the main graph: what such an operator gives, and what nothing but it reads."""
    shown = {item.name for item in model.graph.output}
    readers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    found: Ranges = {}
    for node in model.graph.node:
        if node.op_type not in _ENDS:
            continue
        moving, given = _ENDS[node.op_type]
        found[node.output[0]] = given
        source = node.input[0]
        if readers[source] == {node.op_type} and source not in shown:
            low, high = found.get(source, moving)
            found[source] = (max(low, moving[0]), min(high, moving[1]))
    return found


def within(ranges: Ranges, limits: Ranges) -> Ranges:
    """`ranges`, none reaching beyond its limit."""
    found = dict(ranges)
    for name, (low, high) in limits.items():
        if name in found:
            found[name] = (max(found[name][0], low), min(found[name][1], high))
    return found
