"""From a torch module to a program: its `forward` is traced once, and each call becomes a layer, or says why it cannot.

Of every tensor on the way it is known which numbers of which value it holds, as an array of the tensor's own shape
without windows: so transposing, flattening and picking cost nothing when the program runs.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from fedsite.models.gru import GRU
from fedsite.simulations.vectorised import builder
from fedsite.simulations.vectorised.builder import Layer
from fedsite.simulations.vectorised.images import Image, Slide
from fedsite.simulations.vectorised.job import Job
from fedsite.simulations.vectorised.program import Ints, Program, padded
from fedsite.simulations.vectorised.recurrent_program import recurrent

_ACTIVATIONS: Final[dict[type, int]] = {nn.ReLU: 0, nn.LeakyReLU: 1, nn.Tanh: 2}  # numbers of elementwise.py
_LEAK: Final = 0.01  # the one slope that kernels know


class _UnknownError(Exception):
    """Why there is no kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A tensor: numbers of a value, and zeros that a convolution shall find left of them."""

    value: int
    holds: Ints
    zeros: int = 0


def program(job: Job) -> Program | str:
    """The job's model as layers that kernels know, or the reason why it is none."""
    module = job.module()
    if not all(parameter.requires_grad for parameter in module.parameters()):
        return f"model {job.model.name} is trained in {job.model.trainable} only"
    if any(True for _ in module.buffers()):
        return f"model {job.model.name} has buffers"
    if type(module) is GRU:
        return recurrent(module, job.time, job.features)
    try:
        graph = fx.Tracer().trace(module)
    except Exception as error:
        return f"model {job.model.name} cannot be traced ({type(error).__name__})"
    reader = _Reader(module, job)
    try:
        return reader.read(graph)
    except _UnknownError as error:
        return f"model {job.model.name}: {error}"


class _Reader:
    def __init__(self, module: nn.Module, job: Job) -> None:
        self._module = module
        self._job = job
        self._images = [Image(height=1, width=job.time, channels=job.features, stride=job.features)]
        self._layers: list[list[Any]] = []  # layer and activation
        self._used: set[str] = set()

    def read(self, graph: fx.Graph) -> Program:
        """Walk the calls in order."""
        seen: dict[fx.Node, _Seen] = {}
        for node in graph.nodes:
            if node.op == "placeholder" and not seen:
                seen[node] = _Seen(
                    value=0, holds=np.arange(self._job.time * self._job.features).reshape(self._job.time, -1)
                )
            elif node.op == "output":
                return self._program(seen[cast(fx.Node, node.args[0])])
            elif any(given not in seen for given in node.all_input_nodes):
                raise _UnknownError(f"{node.target} reads what no layer gives")
            else:
                given = [seen[one] for one in node.args if isinstance(one, fx.Node)]
                seen[node] = self._call(node, given)
        raise _UnknownError("it has no answer")

    def _program(self, answer: _Seen) -> Program:
        image = self._images[answer.value]
        whole = np.arange(image.height * image.width * image.channels)
        named = [name for name, _ in self._module.named_parameters()]
        if answer.value != len(self._images) - 1 or not np.array_equal(answer.holds.reshape(-1), whole):
            raise _UnknownError("its answer is not what the last layer gives, in order")
        if {name.rpartition(".")[0] for name in named} != self._used:
            raise _UnknownError("some of its parameters belong to no known layer")
        layers = [(cast(Layer, layer), activation) for layer, activation in self._layers]
        return builder.program(self._images, layers, named)

    def _call(self, node: fx.Node, given: list[_Seen]) -> _Seen:
        if node.op == "call_module":
            return self._layer(str(node.target), given[0])
        if not given:
            raise _UnknownError(f"{node.target} is no layer")
        rest, options = node.args[1:], node.kwargs
        first = given[0]
        if first.zeros:
            raise _UnknownError("zeros that no convolution reads")
        if node.op == "call_method" and not options:
            moved = _moved(str(node.target), first.holds, rest)
            if moved is not None:
                return _Seen(value=first.value, holds=moved)
        if node.target is operator.add and len(given) == 2:
            return self._added(*given)
        if node.target is operator.getitem and isinstance(rest[0], tuple) and rest[0][0] == slice(None):
            return _Seen(value=first.value, holds=np.asarray(first.holds[cast(Any, rest[0][1:])]))
        if node.target is functional.pad and options.get("mode", "constant") == "constant" and not options.get("value"):
            before, *behind = cast(Any, rest[0])
            if behind == [0]:
                return _Seen(value=first.value, holds=first.holds, zeros=before)
        if node.target is functional.interpolate and not rest and options.get("mode") == "nearest":
            return self._stretched(first, cast(Any, options.get("size")))
        raise _UnknownError(f"{getattr(node.target, '__name__', node.target)} has no kernel")

    def _layer(self, name: str, given: _Seen) -> _Seen:
        layer: Any = self._module.get_submodule(name)
        kind = type(layer)
        if given.zeros and kind not in (nn.Conv1d, nn.Conv2d):
            raise _UnknownError(f"zeros before layer {name}")
        if kind is nn.Identity:
            return given
        if kind in _ACTIVATIONS and getattr(layer, "negative_slope", _LEAK) == _LEAK:
            self._activate(given, _ACTIVATIONS[kind])
            return given
        if kind is nn.Linear and given.holds.ndim == 1 and layer.bias is not None:
            self._once(name)
            target = self._value(1, 1, layer.out_features)
            self._layers.append(
                [builder.Dense(name=name, source=given.value, target=target, inputs=given.holds.copy()), -1]
            )
            return _Seen(value=target, holds=np.arange(layer.out_features))
        if kind in (nn.Conv1d, nn.Conv2d):
            return self._convolved(name, layer, given)
        if kind is nn.MaxPool2d:
            plain = (layer.stride, layer.padding, layer.dilation, layer.ceil_mode, layer.return_indices)
            if plain == (layer.kernel_size, 0, 1, False, False) and isinstance(layer.kernel_size, int):
                return self._pooled(layer.kernel_size, given)
        if kind is nn.AdaptiveAvgPool1d and layer.output_size == 1:
            image = self._whole(given, 1)
            target = self._value(1, 1, image.channels)
            self._layers.append([builder.Mean(source=given.value, target=target), -1])
            return _Seen(value=target, holds=np.arange(image.channels)[:, None])
        raise _UnknownError(f"layer {kind.__name__} has no kernel here")

    def _convolved(self, name: str, layer: Any, given: _Seen) -> _Seen:
        axes = len(layer.kernel_size)
        if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str) or layer.bias is None:
            raise _UnknownError(f"layer {name} is no plain convolution")
        kernel, stride, dilation, padding = (
            (1 if what != "padding" else 0,) * (2 - axes) + tuple(getattr(layer, what))
            for what in ("kernel_size", "stride", "dilation", "padding")
        )
        if dilation[1] != 1 and kernel[0] != 1:
            raise _UnknownError(f"layer {name} is dilated in two directions")
        image = self._whole(given, axes)
        before = (padding[0], padding[1] + given.zeros)
        slide = Slide(kernel=kernel, stride=stride, dilation=dilation, before=before, after=padding)
        rows, columns = slide.output((image.height, image.width))
        self._once(name)
        image.top, image.left = max(image.top, before[0]), max(image.left, before[1])
        image.bottom, image.right = max(image.bottom, padding[0]), max(image.right, padding[1])
        target = self._value(rows, columns, layer.out_channels)
        self._layers.append([builder.Convolution(name=name, source=given.value, target=target, slide=slide), -1])
        return _Seen(value=target, holds=_holds(self._images[target], axes))

    def _pooled(self, size: int, given: _Seen) -> _Seen:
        image = self._whole(given, 2)
        slide = Slide(kernel=(size, size), stride=(size, size))
        rows, columns = slide.output((image.height, image.width))
        target = self._value(rows, columns, image.channels)
        self._layers.append([builder.MaxPool(source=given.value, target=target, slide=slide), -1])
        return _Seen(value=target, holds=_holds(self._images[target], 2))

    def _stretched(self, given: _Seen, size: int) -> _Seen:
        image = self._whole(given, 1)
        columns = torch.arange(image.width, dtype=torch.float32)[None, None]
        chosen = functional.interpolate(columns, size=size, mode="nearest")[0, 0].numpy().astype(np.int64)
        target = self._value(1, len(chosen), image.channels)
        self._layers.append([builder.Stretch(source=given.value, target=target, chosen=chosen), -1])
        return _Seen(value=target, holds=_holds(self._images[target], 1))

    def _added(self, one: _Seen, other: _Seen) -> _Seen:
        image, second = self._whole(one, 1), self._whole(other, 1)
        if (image.width, image.channels) != (second.width, second.channels) or one.value == 0 or other.value == 0:
            raise _UnknownError("a sum of values of other shapes")
        target = self._value(1, image.width, image.channels)
        self._layers.append([builder.Added(source=one.value, other=other.value, target=target), -1])
        return _Seen(value=target, holds=_holds(self._images[target], 1))

    def _activate(self, given: _Seen, kind: int) -> None:
        last, activation = self._layers[-1] if self._layers else (None, 0)
        if last is None or last.target != given.value or activation != -1:
            raise _UnknownError("an activation of what others read too")
        self._layers[-1][1] = kind

    def _whole(self, given: _Seen, axes: int) -> Image:
        """The image that a tensor [channel, column] or [channel, row, column] is."""
        image = self._images[given.value]
        if given.value == 0 and axes == 2 and given.holds.ndim == 3 and image.height == 1 and not self._layers:
            rows, columns = given.holds.shape[1:]
            image.height, image.width, image.channels = rows, columns, len(given.holds)
            image.stride = len(given.holds)
        if any(layer.kind not in builder.SINGLE for layer, _ in self._layers):
            raise _UnknownError("an image after a dense layer")
        if given.holds.ndim != axes + 1 or not np.array_equal(given.holds, _holds(image, axes)):
            raise _UnknownError("an image that is not what one layer gives")
        return image

    def _value(self, height: int, width: int, channels: int) -> int:
        if min(height, width) < 1:
            raise _UnknownError("a window too short for its kernel")
        self._images.append(Image(height=height, width=width, channels=channels, stride=padded(channels)))
        return len(self._images) - 1

    def _once(self, name: str) -> None:
        if name in self._used:
            raise _UnknownError(f"layer {name} is called twice")
        self._used.add(name)


def _moved(method: str, holds: Ints, rest: tuple[Any, ...]) -> Ints | None:
    """The same numbers in another shape; axis 0 of the model is windows, which `holds` has not."""
    if method == "flatten" and rest == (1,):
        return holds.reshape(-1)
    if method == "unsqueeze" and rest == (1,):
        return holds[None]
    if method == "unflatten" and rest[0] == 1:
        return holds.reshape(*rest[1], *holds.shape[1:])
    if method == "transpose" and min(rest) > 0:
        return holds.swapaxes(rest[0] - 1, rest[1] - 1)
    return None


def _holds(image: Image, axes: int) -> Ints:
    """What a tensor [channel, row, column] of an image holds; without rows for one axis."""
    numbers = np.arange(image.height * image.width * image.channels)
    found: Ints = numbers.reshape(image.height, image.width, image.channels).transpose(2, 0, 1)
    return found if axes == 2 else found[:, 0]
