"""What a model may be before a runtime sees it: operators of our own export only, and bounded in memory and in time.

A graph comes from the centre: it must not be able to loop, to allocate without bound, or to reach kernels of the
runtime that no model of ours needs. The only loop is Scan, whose number of steps is a length of its input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedsite.models import onnx_reader
from fedsite.models.onnx_operands import refused
from fedsite.models.onnx_reader import FLOAT, Graph, Model, Node, Tensor
from fedsite.models.onnx_shapes import RULES
from fedsite.protocol.errors import IntegrityError
from fedsite.protocol.release import MAX_MODEL

OPSETS = (13, 23)  # of ONNX itself, first and last
SCAN = "Scan"
_SCAN_ATTRIBUTES = {"num_scan_inputs", "scan_input_directions", "scan_output_directions"}

NODES = 4096  # of the graph and the bodies in it
OUTPUTS = 1024  # a calibration graph shows every tensor that int8 touches
RANK = 8
TENSOR = 1 << 28  # numbers of one tensor
TOTAL = 1 << 30  # numbers of all tensors of one run, had none been freed
WORK = 1 << 44  # multiplications of one run: minutes on one core
_NODE_WORK = 1 << 12  # to call a kernel at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run takes at most."""

    numbers: int = 0
    work: int = 0


def check(data: bytes) -> Model:
    """Read a model and make sure that one window can be run through it.

    Raises:
        IntegrityError: not a model of our export's kind, of another opset, too large, or too expensive.
    """
    if len(data) > MAX_MODEL:
        raise IntegrityError(f"model of {len(data)} bytes", allowed=f"at most {MAX_MODEL} bytes")
    model = onnx_reader.read(data)
    foreign = sorted(set(model.opsets) - {""})
    if foreign:
        raise IntegrityError(f"model needs operators of {foreign[0]!r:.80}", allowed="standard ONNX operators")
    if not OPSETS[0] <= model.opsets[""] <= OPSETS[1]:
        raise IntegrityError(
            f"model of ONNX opset {model.opsets['']}",
            allowed=f"{OPSETS[0]} to {OPSETS[1]}",
            next_step="upgrade this site: pip install --upgrade 'fedsite[score]'",
        )
    graph = model.graph
    inputs = [value for value in graph.inputs if value.name not in graph.constants]
    if len(inputs) != 1 or inputs[0].kind != FLOAT or not 1 < len(inputs[0].shape) <= RANK:
        raise IntegrityError(
            f"model with inputs {[(value.name[:40], list(value.shape)[:RANK]) for value in inputs[:8]]}",
            allowed="one float input [windows, …]",
        )
    count = len(graph.nodes) + sum(len(node.body.nodes) for node in graph.nodes if node.body)
    for found, most, what in ((count, NODES, "operations"), (len(graph.outputs), OUTPUTS, "outputs")):
        if not 0 < found <= most:
            raise IntegrityError(f"model of {found} {what}", allowed=f"1 to {most}")
    cost(model, 1)
    return model


def cost(model: Model, windows: int) -> Cost:
    """What a run over so many windows takes; nothing is run to find out.

    Raises:
        IntegrityError: an operator that our export does not write, a shape that cannot be known, or too expensive.
    """
    tally, seen = _walk(model, windows)
    for name in model.graph.outputs:
        if name not in seen:
            raise IntegrityError(f"output {name:.40} is made by nothing", allowed="outputs of operations")
    return Cost(numbers=tally.numbers, work=tally.work)


def shapes(model: Model, windows: int) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor outside of bodies, by name; raises as `cost`."""
    return {name: tensor.shape for name, tensor in _walk(model, windows)[1].items()}


def _walk(model: Model, windows: int) -> tuple[_Tally, dict[str, Tensor]]:
    (given,) = (value for value in model.graph.inputs if value.name not in model.graph.constants)
    sizes = [windows if size is None and index == 0 else size for index, size in enumerate(given.shape)]
    shape = tuple(size for size in sizes if size is not None and size > 0)
    if len(shape) != len(sizes) or shape[0] != windows:
        raise IntegrityError(f"input of shape {sizes} for {windows} windows", allowed="[windows, …], the rest fixed")
    tally = _Tally()
    return tally, tally.graph(model.graph, {given.name: Tensor(shape=shape)}, 1)


class _Tally:
    """Walks a graph in order and adds up what it takes."""

    def __init__(self) -> None:
        self.numbers = 0
        self.work = 0

    def graph(self, graph: Graph, given: Mapping[str, Tensor], times: int) -> dict[str, Tensor]:
        """Every tensor of a graph that runs `times` over, by name; a body sees nothing but what it is given."""
        known: dict[str, Tensor] = {**graph.constants, **given}
        for node in graph.nodes:
            inputs = [_known(node, known, name) if name else None for name in node.inputs]
            outputs = self._scan(node, inputs, times) if node.operator == SCAN else self._plain(node, inputs, times)
            if len(outputs) != len(node.outputs) or len(set(node.outputs)) != len(outputs):
                raise refused(node, f"{len(node.outputs)} outputs")
            for name, tensor in zip(node.outputs, outputs, strict=True):
                if name in known or not name:
                    raise refused(node, f"output {name[:40]!r}, which is there already")
                known[name] = tensor
        return known

    def _plain(self, node: Node, inputs: list[Tensor | None], times: int) -> tuple[Tensor, ...]:
        if node.operator not in RULES:
            raise IntegrityError(f"model with operator {node.operator:.40}", allowed=", ".join(sorted([*RULES, SCAN])))
        rule, attributes = RULES[node.operator]
        if node.body is not None or not set(node.attributes) <= set(attributes):
            raise refused(node, f"attributes {sorted(set(node.attributes) - set(attributes))[:4]}")
        effect = rule(node, inputs)
        self._add(node, effect.outputs, scratch=effect.scratch, work=effect.work, times=times)
        return effect.outputs

    def _scan(self, node: Node, inputs: list[Tensor | None], times: int) -> tuple[Tensor, ...]:
        body, over = node.body, node.attributes.get("num_scan_inputs")
        given = [tensor for tensor in inputs if tensor is not None]
        if body is None or len(given) != len(inputs) or not set(node.attributes) <= _SCAN_ATTRIBUTES:
            raise refused(node, "something else than a body and inputs")
        if not isinstance(over, int) or not 1 <= over <= len(given) or len(body.inputs) != len(given):
            raise refused(node, "inputs that do not fit")
        states = [tensor.shape for tensor in given[: len(given) - over]]
        sequences = [tensor.shape for tensor in given[len(given) - over :]]
        if any(not shape or shape[0] != sequences[0][0] or shape[0] < 1 for shape in sequences):
            raise refused(node, "sequences of no or another length")
        steps = sequences[0][0]
        shapes = [*states, *(shape[1:] for shape in sequences)]
        names = [value.name for value in body.inputs]
        if len(set(names)) != len(names) or set(names) & set(body.constants) or len(body.outputs) < len(states):
            raise refused(node, "inputs or outputs that do not fit")
        step = {name: Tensor(shape=shape) for name, shape in zip(names, shapes, strict=True)}
        known = self.graph(body, step, times * steps)
        found = [_known(node, known, name).shape for name in body.outputs]
        if found[: len(states)] != states:
            raise refused(node, "a state that changes its shape")
        outputs = tuple(
            Tensor(shape=shape if index < len(states) else (steps, *shape)) for index, shape in enumerate(found)
        )
        self._add(node, outputs, scratch=0, work=sum(math.prod(tensor.shape) for tensor in outputs), times=times)
        return outputs

    def _add(self, node: Node, outputs: tuple[Tensor, ...], *, scratch: int, work: int, times: int) -> None:
        sizes = [math.prod(tensor.shape) for tensor in outputs]
        self.numbers += sum(sizes) + scratch  # a body's are freed after each step
        self.work += times * (work + _NODE_WORK)
        largest = max([*sizes, scratch])
        if largest > TENSOR or any(len(tensor.shape) > RANK for tensor in outputs):
            raise refused(node, f"a tensor of {largest} numbers and {max(len(t.shape) for t in outputs)} dimensions")
        if self.numbers > TOTAL or self.work > WORK:
            raise IntegrityError(
                f"model that holds {self.numbers} numbers and multiplies {self.work} times",
                allowed=f"at most {TOTAL} and {WORK} in one run",
            )


def _known(node: Node, known: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in known:
        raise refused(node, f"input {name[:40]!r}, which is made by nothing before it")
    return known[name]
