"""Which models are recurrent layers with one dense layer on the last state, and their table for kernels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from fedsite.models import gru
from fedsite.simulations.vectorised import builder
from fedsite.simulations.vectorised.builder import Laid
from fedsite.simulations.vectorised.images import Image
from fedsite.simulations.vectorised.program import RECURRENT, Program, padded


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrent:
    """A recurrent layer over all steps; its answer is its last state, or all of them."""

    kind: ClassVar[int] = RECURRENT
    name: str
    source: int
    target: int
    space: int  # the value that it keeps for itself
    scratch: int  # and one for what is needed for a moment
    steps: int
    inputs: int
    hidden: int

    def lay(self, images: Sequence[Image], laid: Laid) -> tuple[int, int, int, list[int]]:
        """OTHER, READ, WRITE and the kind's own columns."""
        del images
        wide = padded(self.hidden)
        # Rows of reset, update, new: the inputs' weights, their bias, the state's bias, the state's weights.
        firsts = {"input.weight": 0, "input.bias": self.inputs, "recurrent.bias": self.inputs + 1}
        firsts["recurrent.weight"] = self.inputs + 2
        counts = {"input.weight": self.inputs, "recurrent.weight": self.hidden}
        gates, units = np.ix_(np.arange(3), np.arange(self.hidden))
        columns = (gates * wide + units).reshape(-1, 1)
        for part, first in firsts.items():
            rows = first + np.arange(counts.get(part, 1))
            laid.weights[f"{self.name}.{part}"] = laid.size + rows * 3 * wide + columns
        laid.size += weight_size(self.inputs, self.hidden)
        return self.space, 0, 0, [self.steps, self.inputs, self.hidden, int(self.source == 0), self.scratch]


def weight_size(inputs: int, hidden: int) -> int:
    """Numbers of a layer's weights in kernels."""
    return (inputs + 2 + hidden) * 3 * padded(hidden)


def recurrent(module: gru.GRU, time: int, features: int) -> Program:
    """The table of a GRU."""
    images = [Image(height=1, width=time, channels=features, stride=features)]
    layers: list[tuple[builder.Layer, int]] = []

    def value(width: int, channels: int) -> int:
        images.append(Image(height=1, width=width, channels=channels, stride=padded(channels)))
        return len(images) - 1

    source, last = 0, len(module.layers) - 1
    for number, layer in enumerate(cast(Iterable[gru.Layer], module.layers)):
        inputs, hidden = layer.input.in_features, layer.hidden
        wide = padded(hidden)
        target = value(1 if number == last else time, hidden)
        space = value(1, time * (inputs + 2) + (5 * time + 1) * wide)
        scratch = value(1, 3 * wide * (wide + padded(inputs)) + weight_size(inputs, hidden))
        one = Recurrent(
            name=f"layers.{number}", source=source, target=target, space=space, scratch=scratch,
            steps=time, inputs=inputs, hidden=hidden,
        )  # fmt: skip
        layers.append((one, -1))
        source = target
    answer = value(1, module.head.out_features)
    head = builder.Dense(name="head", source=source, target=answer, inputs=np.arange(module.head.in_features))
    names = [name for name, _ in module.named_parameters()]
    return builder.program(images, [*layers, (head, -1)], names)
