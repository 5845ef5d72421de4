"""A model as a list of steps whose gradients are written out, found by tracing its `forward` once.

Autograd builds its graph anew at every pass, and makes one gradient of each weight for the whole batch. Here the way
back is known beforehand, ends at the first trained layer, and leaves at each layer what its per-unit gradients are made
of. Every step treats the windows of a batch on their own, so the whole does. A model with any other step has no list,
and is left to autograd.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from torch import fx, nn
from torch.nn import functional

from fedsite.models import gru
from fedsite.models.steps_plain import (
    Array,
    MaxPool,
    MeanOverTime,
    PadFront,
    Rectifier,
    Reshape,
    Same,
    Select,
    Step,
    Stretch,
    Tanh,
    Transpose,
    Unsqueeze,
)  # fmt: skip
from fedsite.models.steps_recurrent import Recurrent
from fedsite.models.steps_trained import Convolution, Dense, Normalised, Sizes, Trained, trained_names
from fedsite.models.unit_gradients import UnitGradients


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A step, and which values it reads; value 0 is the input, value n the answer of the n-th step."""

    step: Step
    given: tuple[int, ...]


class Explicit:
    """Forward and backward passes of a model of its own, without autograd."""

    def __init__(self, placed: list[Placed], order: list[nn.Module]) -> None:
        self._placed = placed
        trained = [False] * (len(placed) + 1)  # whether a value depends on a trained parameter
        for at, one in enumerate(placed, 1):
            before = any(trained[number] for number in one.given)
            own = False
            if hasattr(one.step, "layers"):
                step = cast(Trained, one.step)
                step.inward, own = before, any(trained_names(layer) for layer in step.layers)
            trained[at] = before or own
        self._trained = trained
        # Parameters keep the model's order, whatever the order of the steps.
        owners = [step for step in (one.step for one in placed) if hasattr(step, "layers")]
        self._owners = [cast(Trained, step) for step in owners]
        places = [order.index(layer) for step in self._owners for layer in step.layers if trained_names(layer)]
        self._sorted = sorted(range(len(places)), key=places.__getitem__)

    def forward(self, x: Array) -> Array:
        """The model's answer; what the way back needs is held until the next pass."""
        values = [x]
        for one in self._placed:
            values.append(one.step.forward(*(values[number] for number in one.given)))
        return values[-1]

    def backward(self, gradient: Array) -> None:
        """The way back from the loss's gradient of the answer."""
        waiting: dict[int, Array] = {len(self._placed): gradient}
        for at in range(len(self._placed), 0, -1):
            found = waiting.pop(at, None)
            if found is None or not self._trained[at]:
                continue
            one = self._placed[at - 1]
            back = one.step.backward(found)
            for number in one.given:
                if self._trained[number]:
                    waiting[number] = waiting[number] + back if number in waiting else back

    def kept(self) -> int:
        """Numbers that the steps hold for the way back of the last pass."""
        return sum(
            value.size for one in self._placed for value in vars(one.step).values() if isinstance(value, np.ndarray)
        )

    def units(self, sizes: Sizes) -> list[UnitGradients]:
        """Gradients of each unit, layer by layer in the model's order, after `backward`."""
        found = [unit for step in self._owners for unit in step.units(sizes)]
        return [found[number] for number in self._sorted]


def explicit(module: nn.Module) -> Explicit | None:
    """The model's steps, which share its parameters; None where one of them is not known."""
    owned = [parameter for layer in module.modules() for parameter in layer.parameters(recurse=False)]
    if len(owned) != len(list(module.parameters())):
        return None  # a shared parameter has one gradient, and here there would be two
    try:
        graph = _Tracer().trace(module)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError):
        return None  # its path depends on the data
    numbers: dict[fx.Node, int] = {}
    placed: list[Placed] = []
    seen: set[str] = set()
    for node in graph.nodes:
        if node.op == "placeholder" and not numbers:
            numbers[node] = 0
            continue
        if node.op == "output":
            if node.args[0] is not list(numbers)[-1]:
                return None
            break
        step = _step(node, module)
        if step is None or any(given not in numbers for given in node.all_input_nodes):
            return None
        if hasattr(step, "layers"):
            if str(node.target) in seen:
                return None  # a layer that is called twice would keep only its last call
            seen.add(str(node.target))
        given = tuple(numbers[one] for one in node.args if isinstance(one, fx.Node))
        placed.append(Placed(step=step, given=given))
        numbers[node] = len(placed)
    order = list(module.modules())
    ours = {id(layer) for one in placed if hasattr(one.step, "layers") for layer in cast(Trained, one.step).layers}
    if any(trained_names(layer) and id(layer) not in ours for layer in order):
        return None
    return Explicit(placed, order)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return type(module) is gru.Layer or super().is_leaf_module(module, qualified_name)


def _step(node: fx.Node, module: nn.Module) -> Step | None:
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        make = _MODULES.get(type(layer))
        return None if make is None else make(layer)
    arguments = node.args[1:]
    options: Mapping[str, Any] = node.kwargs
    if node.op == "call_method":
        if not options and arguments == (1,) and node.target in ("flatten", "unsqueeze"):
            return Reshape(-1) if node.target == "flatten" else Unsqueeze()
        if node.target == "unflatten" and not options and arguments[0] == 1:
            return Reshape(*cast(tuple[int, ...], arguments[1]))
        if node.target == "transpose" and not options:
            return Transpose(*cast(tuple[int, int], arguments))
        return None
    if node.target is operator.add and len(node.all_input_nodes) == 2:
        return Same()
    if node.target is operator.getitem:
        return Select(arguments[0])
    set_ = {name: value for name, value in options.items() if value not in (None, False)}
    if node.target is functional.pad and set_ in ({}, {"mode": "constant"}) and cast(Any, arguments[0])[1:] == (0,):
        return PadFront(cast(Any, arguments[0])[0])
    if node.target is functional.interpolate and not arguments and set_.keys() == {"size", "mode"}:
        return Stretch(int(cast(int, set_["size"]))) if set_["mode"] == "nearest" else None
    return None


def _rectifier(layer: Any) -> Step | None:
    return None if layer.inplace else Rectifier(getattr(layer, "negative_slope", 0.0))


def _convolution(layer: Any) -> Step | None:
    plain = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return Convolution(layer) if plain else None


def _pool(layer: Any) -> Step | None:
    plain = (layer.stride, layer.padding, layer.dilation, layer.ceil_mode, layer.return_indices)
    return MaxPool(layer.kernel_size) if plain == (layer.kernel_size, 0, 1, False, False) else None


_MODULES: dict[type[nn.Module], Callable[[Any], Step | None]] = {
    nn.Linear: Dense,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.GroupNorm: lambda layer: Normalised(layer) if layer.affine else None,
    gru.Layer: Recurrent,
    nn.Identity: lambda _: Same(),
    nn.Tanh: lambda _: Tanh(),
    nn.ReLU: _rectifier,
    nn.LeakyReLU: _rectifier,
    nn.AdaptiveAvgPool1d: lambda layer: MeanOverTime() if layer.output_size == 1 else None,
    nn.MaxPool2d: _pool,
}
