"""Dense stacks by formula: stacked matrix products, and the update fused into the last of them.

The gradient of a layer is δᵀa, with a its input and δ the loss's derivative at its output; `baddbmm_` adds it to the
weights at once. Under DP-SGD a window's gradient is the outer product of δ and a: its norm follows from the norms of
both, and it is never made. Of a unit of several windows each layer's gradient is made for its norm, and forgotten.

Shapes: C sites, B windows, D numbers at a layer, U privacy units.
Source: ghost norms, Goodfellow 2015 (arXiv:1510.01799), section 4; Li et al. 2022 (arXiv:2110.05679), equation 4.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fedsite.models import loss_gradients, losses
from fedsite.simulations.vectorised.dense import Dense
from fedsite.simulations.vectorised.job import Job
from fedsite.simulations.vectorised.lockstep import Batch, Lockstep
from fedsite.simulations.vectorised.population import Population

_NUMBERS = 1 << 22  # of units' gradients held at once (16 MiB)
_LEAK = 0.01  # torch.nn.LeakyReLU's slope


class Batched(Lockstep):
    """Explicit formulas on stacked sites."""

    name: ClassVar[str] = "batched"

    def __init__(self, job: Job, population: Population, stack: Dense, device: str = "cpu") -> None:
        clip = job.privacy.clip if job.private else None
        super().__init__(job, population, DenseGradients(stack, job.loss, clip, device), device)


class DenseGradients:
    """Gradients of stacked dense layers."""

    def __init__(self, stack: Dense, loss: str, clip: float | None, device: str = "cpu") -> None:
        self._stack = stack
        self._slope = loss_gradients.of_tensors(losses.loss_function(loss), device)
        self._clip = clip

    def push(self, params: list[Tensor], batch: Batch, into: list[Tensor], beta: float, alpha: float) -> None:
        """into ← beta · into + alpha · gradient, where `into` may be `params`."""
        inputs, output = self._forward(params, batch.x.flatten(2))
        slope = self._slope(output.flatten(0, 1), batch.y.flatten(0, 1)).view(output.shape)
        deltas = self._backward(params, inputs, slope.mul_(batch.share[..., None]))
        if self._clip is not None:
            factor = self._factors(inputs, deltas, batch)[..., None]
            # An overflowing window is left out whole: infinity times zero would be NaN.
            deltas = [torch.where(factor > 0, delta * factor, 0.0) for delta in deltas]
        for layer, (a, delta) in enumerate(zip(inputs, deltas, strict=True)):
            into[2 * layer].baddbmm_(delta.transpose(1, 2), a, beta=beta, alpha=alpha)
            into[2 * layer + 1].mul_(beta).add_(delta.sum(1), alpha=alpha)

    def _forward(self, params: list[Tensor], a: Tensor) -> tuple[list[Tensor], Tensor]:
        """What enters each layer [C, B, D], and what leaves the last."""
        inputs = []
        for layer in range(self._stack.layers):
            if layer:
                a = activated(self._stack.activation, a)
            inputs.append(a)
            a = torch.bmm(a, params[2 * layer].transpose(1, 2)).add_(params[2 * layer + 1][:, None])
        return inputs, a

    def _backward(self, params: list[Tensor], inputs: list[Tensor], last: Tensor) -> list[Tensor]:
        """The loss's derivative at each layer's output [C, B, D], first layer first."""
        found = [last]
        for layer in range(self._stack.layers - 1, 0, -1):
            delta = torch.bmm(found[0], params[2 * layer])
            found.insert(0, delta.mul_(derivative(self._stack.activation, inputs[layer])))
        return found

    def _factors(self, inputs: list[Tensor], deltas: list[Tensor], batch: Batch) -> Tensor:
        """What each window's part of the gradient is multiplied by [C, B], so that no unit exceeds the norm."""
        assert self._clip is not None
        pairs = list(zip(inputs, deltas, strict=True))
        if batch.unit is None:
            square = sum(d.square().sum(2) * (a.square().sum(2) + 1.0) for a, d in pairs)
            return limits(torch.as_tensor(square), self._clip)
        sites, index, there = batch.members()
        square = torch.zeros(index.shape[:2], device=batch.share.device)
        for a, d in pairs:
            held = max(1, _NUMBERS // (index.shape[1] * a.shape[2] * d.shape[2]))  # sites at a time
            for start in range(0, len(a), held):
                own, part = sites[start : start + held], slice(start, start + held)
                unit = torch.where(there[part, ..., None], d[own, index[part]], 0.0)
                gradient = unit.mT @ a[own, index[part]]
                square[part] += gradient.square().sum((2, 3)) + unit.sum(2).square().sum(2)
        return limits(square, self._clip).gather(1, batch.unit)


def limits(square: Tensor, clip: float) -> Tensor:
    """min(1, clip / norm) of squared norms; 0 where a norm is not finite, as privacy.clipping has it."""
    norm = square.clamp(min=0.0).sqrt()
    return torch.where(norm.isfinite(), clip / norm.clamp(min=clip), 0.0)


def activated(name: str, z: Tensor) -> Tensor:
    """The activation, in place: nobody needs its input again."""
    if name == "tanh":
        return z.tanh_()
    return z.relu_() if name == "relu" else torch.nn.functional.leaky_relu_(z, _LEAK)


def derivative(name: str, a: Tensor) -> Tensor:
    """Of the activation, from its output."""
    if name == "tanh":
        return 1.0 - a * a
    return (a > 0).to(a.dtype) if name == "relu" else torch.where(a > 0, 1.0, _LEAK)
