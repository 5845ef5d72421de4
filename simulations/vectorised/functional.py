"""Any functional model through `torch.func`: one traced gradient, mapped over stacked sites; also on a CUDA device.

Under DP-SGD it is mapped over windows too, in blocks that bound the memory of per-window gradients.
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

_NUMBERS: Final = 1 << 24  # per-window gradient numbers held at once (64 MiB)


class Functional(Lockstep):
    """`vmap` of the gradient over sites."""

    name: ClassVar[str] = "vmap"

    def __init__(self, job: Job, population: Population, device: str = "cpu") -> None:
        self._traced = TracedGradients(job, device)
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
        params = [value.detach().expand(2, *value.shape).contiguous() for value in self._start()]
        x, y = (tensor[:2].expand(2, *tensor[:2].shape).to(self._device) for tensor in (self._x, self._y))
        batch = Batch(x=x, y=y, share=torch.ones(x.shape[:2], device=self._device), unit=None)
        self._gradients.push(params, batch, [torch.zeros_like(param) for param in params], 0.0, 1.0)

    def _start(self) -> list[Tensor]:
        named = dict(self._job.module().named_parameters())
        return [named[name].to(self._device) for name in self._layout.names]


class TracedGradients:
    """Gradients of stacked copies of one module."""

    def __init__(self, job: Job, device: str = "cpu") -> None:
        module = self._module = job.module().to(device)
        self._names = Layout.of(module).names
        self._clip = job.privacy.clip if job.private else None
        value = _value(module, self._names, losses.loss_function(job.loss))
        each = grad(value)
        self._sites = vmap(each)
        self._windows = vmap(vmap(each, in_dims=(None, 0, 0, 0)))

    def load(self, weights: Weights) -> None:
        """Take the weights that are not trained, which are the same at every site."""
        if len(self._names) < len(weights):
            vector.load(self._module, weights)

    def push(self, params: list[Tensor], batch: Batch, into: list[Tensor], beta: float, alpha: float) -> None:
        """into ← beta · into + alpha · gradient, where `into` may be `params`."""
        if self._clip is None:
            found = self._sites(params, batch.x, batch.y, batch.share)
        else:
            found = self._clipped(params, batch, self._clip)
        for target, gradient in zip(into, found, strict=True):
            target.mul_(beta).add_(gradient, alpha=alpha)

    def _clipped(self, params: list[Tensor], batch: Batch, clip: float) -> list[Tensor]:
        """Σ over windows of their clipped gradients, [C, ...] each."""
        numbers = sum(param.numel() for param in params)  # of one window of every site
        block = max(1, _NUMBERS // numbers)
        total = [torch.zeros_like(param) for param in params]
        for start in range(0, batch.x.shape[1], block):
            part = slice(start, start + block)
            windows = (batch.x[:, part, None], batch.y[:, part, None], batch.share[:, part, None])
            found = self._windows(params, *windows)
            square = torch.stack([each.flatten(2).square().sum(2) for each in found]).sum(0)
            factor = limits(square, clip)
            for into, each in zip(total, found, strict=True):
                scale = factor.view(*factor.shape, *(1,) * (each.dim() - 2))
                into += torch.where(scale > 0, each * scale, 0.0).sum(1)
        return total


def _value(module: nn.Module, names: tuple[str, ...], criterion: losses.Loss) -> Callable[..., Tensor]:
    """The weighted loss of some windows as a function of the trained parameters."""
    frozen = {name: value for name, value in module.named_parameters() if name not in names}

    def value(params: list[Tensor], x: Tensor, y: Tensor, share: Tensor) -> Tensor:
        named = dict(zip(names, params, strict=True))
        return (criterion(functional_call(module, {**frozen, **named}, (x,)), y) * share).sum()

    return value
