"""Activations and norms by name, for every architecture: only layers that know per-example gradients.

No BatchNorm anywhere: it mixes the examples of a batch, so no example has a gradient of its own to clip.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import nn

Activation = Literal["relu", "leaky_relu", "tanh"]
Norm = Literal["none", "group"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "tanh": nn.Tanh}
_LARGEST_GROUPS = 4


def activation(name: Activation) -> nn.Module:
    """A fresh activation layer, never in place (a gradient hook may still need the input)."""
    return _ACTIVATIONS[name]()


def norm(name: Norm, channels: int) -> nn.Module:
    """GroupNorm over the largest number of groups up to four that divides `channels`, or nothing."""
    if name == "none":
        return nn.Identity()
    groups = next(count for count in range(_LARGEST_GROUPS, 0, -1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)


def dense(sizes: tuple[int, ...], name: Activation) -> nn.Sequential:
    """Linear layers between consecutive `sizes`, an activation between them and none at the end."""
    stack: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        if index:
            stack.append(activation(name))
        stack.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*stack)
