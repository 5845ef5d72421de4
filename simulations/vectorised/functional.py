"""Any functional model through `torch.func`: one traced gradient, mapped over stacked sites; also on a CUDA device.

Under DP-SGD it is mapped over privacy units too, in blocks that bound the memory of their gradients. A unit of several
windows has the gradient of their mean: its windows are laid side by side, filled up with some of weight 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedsite.models import losses, vector
from fedsite.simulations.vectorised.batched import limits
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Job, Layout, Weights
from fedsite.simulations.vectorised.lockstep import Batch, Lockstep
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.schedule import Chunk
from fedsite.simulations.vectorised.sums import Sum

NUMBERS: Final = {"cpu": 1 << 24, "cuda": 1 << 29}  # of privacy units' gradients that are held at once (64 MiB, 2 GiB)
Sums = Callable[[list[Tensor], Tensor, Tensor, Tensor], list[Tensor]]


class Functional(Lockstep):
    """`vmap` of the gradient over sites."""

    name: ClassVar[str] = "vmap"

    def __init__(
        self, job: Job, population: Population, device: str = "cpu", traced: TracedGradients | None = None
    ) -> None:
        self._traced = traced or TracedGradients(job, device)
        super().__init__(job, population, self._traced, device)

    def update(self, order: Order, chunk: Chunk, total: Sum) -> None:
        """Train every site of a chunk as ordered and add its update to `total`.

        Raises:
            ConfigError: training diverged.
        """
        self._traced.load(order.weights)
        super().update(order, chunk, total)

    def probe(self) -> None:
        """Make one gradient for two sites: whether a model can be traced is known by trying.

        Raises:
            RuntimeError: it cannot.
        """
        self.attempt(2, 2)

    def attempt(self, sites: int, width: int) -> None:
        """One gradient of so many sites and windows, for nothing."""
        named = dict(self._job.module().named_parameters())
        origin = [named[name].detach().to(self._device) for name in self._layout.names]
        params = [value.expand(sites, *value.shape).clone(memory_format=torch.contiguous_format) for value in origin]
        rows = torch.zeros((sites, width), dtype=torch.int64)
        x, y = (tensor[rows.to(tensor.device)].to(self._device) for tensor in (self._windows.x, self._windows.y))
        unit = rows.to(self._device) if self._job.private and self._job.privacy.unit == "entity" else None
        batch = Batch(x=x, y=y, share=torch.ones(rows.shape, device=self._device), unit=unit)
        local = self._job.local
        straight = local.optimizer == "sgd" and not local.momentum  # into the parameters themselves
        into = params if straight else [torch.zeros_like(param) for param in params]
        self._gradients.push(params, batch, into, 1.0, 0.0)


class TracedGradients:
    """Gradients of stacked copies of one module."""

    def __init__(self, job: Job, device: str = "cpu") -> None:
        module = self._module = job.module().to(device)
        layout = self._layout = Layout.of(module)
        each = grad(_value(module, layout.names, losses.loss_function(job.loss)))
        self.sums: Sums = clipped(each, job.privacy.clip) if job.private else vmap(each)
        self._private, self._held = job.private, NUMBERS[device]

    def load(self, weights: Weights) -> None:
        """Take the weights that are not trained, which are the same at every site."""
        if len(self._layout.names) < len(weights):
            vector.load(self._module, weights)

    def push(self, params: list[Tensor], batch: Batch, into: list[Tensor], beta: float, alpha: float) -> None:
        """into ← beta · into + alpha · gradient, where `into` may be `params`."""
        each = (batch.x, batch.y, batch.share)
        found = self._blocks(params, batch) if self._private else self.sums(params, *each)
        for target, gradient in zip(into, found, strict=True):
            target.mul_(beta).add_(gradient, alpha=alpha)

    def _blocks(self, params: list[Tensor], batch: Batch) -> list[Tensor]:
        """Σ over privacy units of their clipped gradients, [C, ...] each."""
        x, y, share = by_unit(batch)
        block = max(1, self._held // (self._layout.size * len(x)))
        total = [torch.zeros_like(param) for param in params]
        for start in range(0, x.shape[1], block):
            part = slice(start, start + block)
            for into, each in zip(total, self.sums(params, x[:, part], y[:, part], share[:, part]), strict=True):
                into += each
        return total


def clipped(each: Callable[..., list[Tensor]], clip: float) -> Sums:
    """Of sites [C] and units [C, U, M windows]: Σ over units of their clipped gradients."""
    units = vmap(vmap(each, in_dims=(None, 0, 0, 0)))

    def sums(params: list[Tensor], x: Tensor, y: Tensor, share: Tensor) -> list[Tensor]:
        found = units(params, x, y, share)
        square = torch.stack([gradient.flatten(2).square().sum(2) for gradient in found]).sum(0)
        factor = limits(square, clip)
        scales = [factor.view(*factor.shape, *(1,) * (gradient.dim() - 2)) for gradient in found]
        pairs = zip(scales, found, strict=True)
        return [torch.where(scale > 0, gradient * scale, 0.0).sum(1) for scale, gradient in pairs]

    return sums


def by_unit(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """A batch's x, y and share as [C, U units, M windows, ...]; what fills up weighs 0."""
    if batch.unit is None:
        return batch.x[:, :, None], batch.y[:, :, None], batch.share[:, :, None]
    sites, index, there = batch.members()
    return batch.x[sites, index], batch.y[sites, index], torch.where(there, batch.share[sites, index], 0.0)


def _value(module: nn.Module, names: tuple[str, ...], criterion: losses.Loss) -> Callable[..., Tensor]:
    """The weighted loss of some windows as a function of the trained parameters."""
    frozen = {name: value for name, value in module.named_parameters() if name not in names}

    def value(params: list[Tensor], x: Tensor, y: Tensor, share: Tensor) -> Tensor:
        named = dict(zip(names, params, strict=True))
        return (criterion(functional_call(module, {**frozen, **named}, (x,)), y) * share).sum()

    return value
