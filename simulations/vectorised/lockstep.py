"""Sites of a chunk step together on stacked parameters; how a step's gradients are made is a part put in.

Sites lie in order of falling steps, so those still at work are a prefix of the stack: a view, not a copy. A site whose
Poisson batch is empty sits the step out, as in production, unless noise has to be added all the same.

Source: FedProx, Li et al. 2020 (arXiv:1812.06127), equation 2; Adam, Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsite.simulations.vectorised import devices, noise, randomness
from fedsite.simulations.vectorised.devices import Drawn
from fedsite.simulations.vectorised.executor import Order, finish
from fedsite.simulations.vectorised.job import Job, Layout
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.randomness import Purpose
from fedsite.simulations.vectorised.schedule import Chunk, Schedule, schedule
from fedsite.simulations.vectorised.sums import Sum

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # torch.optim.Adam's


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One step of some sites. `x` [C, B, time, feature], `y` [C, B, ...]; places beyond a site's count weigh 0."""

    x: Tensor
    y: Tensor
    share: Tensor  # [C, B] weight of a window in its site's gradient, or in its privacy unit's
    unit: Tensor | None  # [C, B] privacy units, numbered from 0 and in order; None: every window is one

    def members(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where each unit's windows are: index by the first two, sites [C, 1, 1] and places [C, U, M].

        The third, [C, U, M], says where there is one: smaller units are filled up.
        """
        assert self.unit is not None
        there = self.share > 0
        shape, device = (len(there), int(self.unit.max()) + 1), there.device
        sizes = torch.zeros(shape, dtype=torch.int64, device=device).scatter_add_(1, self.unit, there.long())
        start = (sizes.cumsum(1) - sizes).gather(1, self.unit)  # units lie one behind the other
        place = torch.arange(there.shape[1], device=device) - start
        site, window = there.nonzero(as_tuple=True)
        index = torch.zeros((*shape, int(sizes.max())), dtype=torch.int64, device=device)
        index[site, self.unit[site, window], place[site, window]] = window
        filled = torch.arange(index.shape[2], device=device) < sizes[..., None]
        return torch.arange(len(there), device=device)[:, None, None], index, filled


class Gradients(Protocol):
    """Gradients of stacked sites."""

    def push(self, params: list[Tensor], batch: Batch, into: list[Tensor], beta: float, alpha: float) -> None:
        """into ← beta · into + alpha · gradient, where `into` may be `params`; clipped sums where the job is private.

        Shapes: each of `params` and `into` [C, ...].
        """


@dataclass(slots=True, kw_only=True)
class _Stack:
    """Parameters and optimizer state of the sites of a chunk, [C, ...] each."""

    params: list[Tensor]
    first: list[Tensor]  # momentum, or Adam's first moment
    second: list[Tensor]
    taken: Tensor  # [C] steps that Adam has made
    drift: list[Tensor]  # SCAFFOLD's c − c_i; empty without it

    def tensors(self) -> list[Tensor]:
        """What a step changes."""
        return [*self.params, *self.first, *self.second, self.taken]

    def part(self, pick: slice | Tensor) -> _Stack:
        """Some of the sites: views for a slice, copies for indices."""
        return _Stack(
            params=[tensor[pick] for tensor in self.params],
            first=[tensor[pick] for tensor in self.first],
            second=[tensor[pick] for tensor in self.second],
            taken=self.taken[pick],
            drift=[tensor[pick] for tensor in self.drift],
        )


class Lockstep:
    """Trains a chunk of sites in common steps."""

    def __init__(self, job: Job, population: Population, gradients: Gradients, device: str = "cpu") -> None:
        self._job = job
        self._population = population
        self._gradients = gradients
        self._device = device
        self._layout = Layout.of(job.module())
        self._slices = self._layout.slices
        self._windows = devices.Windows(population.x, population.targets(job.loss), device)
        devices.exact(device)

    def update(self, order: Order, chunk: Chunk, total: Sum) -> None:
        """Train every site of a chunk as ordered and add its update to `total`.

        Raises:
            ConfigError: training diverged.
        """
        plan = schedule(self._job, self._population, chunk)
        origin = [torch.tensor(order.weights[name]).to(self._device) for name in self._layout.names]
        stack = self._stack(origin, len(chunk.sites), order.drift(chunk.sites))
        drawn = self._windows.drawn(plan)
        for step in range(int(plan.steps.max())):
            self._step(stack, origin, plan, drawn, chunk, step)
        deltas = [param.sub_(old) for param, old in zip(stack.params, origin, strict=True)]
        finish(deltas, self._job, self._population, order, chunk, total)

    def _stack(self, origin: list[Tensor], sites: int, drift: NDArray[np.float32] | None) -> _Stack:
        local = self._job.local
        # One site: `contiguous` would be the origin itself, which must stay as it is.
        params = [old.expand(sites, *old.shape).clone(memory_format=torch.contiguous_format) for old in origin]
        adam = local.optimizer == "adam"
        return _Stack(
            params=params,
            first=[torch.zeros_like(param) for param in params] if adam or local.momentum else [],
            second=[torch.zeros_like(param) for param in params] if adam else [],
            taken=torch.zeros(sites, device=self._device),
            drift=[] if drift is None else self._parts(torch.from_numpy(drift).to(self._device)),
        )

    def _parts(self, flat: Tensor) -> list[Tensor]:
        """Each parameter's numbers of stacked flat vectors [C, number]."""
        pairs = zip(self._slices, self._layout.shapes, strict=True)
        return [flat[:, part].reshape(len(flat), *shape) for part, shape in pairs]

    def _step(self, stack: _Stack, origin: list[Tensor], plan: Schedule, drawn: Drawn, chunk: Chunk, step: int) -> None:
        active = int((plan.steps > step).sum())
        counts = plan.counts[:active, step]
        width = max(int(counts.max()), 1)
        if self._job.private or counts.all():
            part = stack.part(slice(active))
            self._descend(part, origin, self._batch(drawn, slice(active), step, width), chunk, step)
            return
        there = counts.nonzero()[0]
        if len(there):
            pick = torch.from_numpy(there).to(self._device)
            part = stack.part(pick)
            self._descend(part, origin, self._batch(drawn, pick, step, width), chunk, step)
            for whole, some in zip(stack.tensors(), part.tensors(), strict=True):
                whole[pick] = some

    def _batch(self, drawn: Drawn, pick: slice | Tensor, step: int, width: int) -> Batch:
        counts, rows = drawn.counts[pick, step], drawn.rows[pick, step, :width]
        there = torch.arange(width, device=self._device) < counts[:, None]
        unit = None
        share = there.float()
        if drawn.unit is not None:
            unit = drawn.unit[pick, step, :width]
            sizes = torch.zeros((len(rows), width), device=self._device).scatter_add_(1, unit, share)
            share = share / sizes.gather(1, unit).clamp(min=1.0)
        elif not self._job.private:
            share = share / counts[:, None]
        x = drawn.x[rows]
        return Batch(x=x, y=x if drawn.y is drawn.x else drawn.y[rows], share=share, unit=unit)

    def _descend(self, stack: _Stack, origin: list[Tensor], batch: Batch, chunk: Chunk, step: int) -> None:
        local, rate = self._job.local, self._job.learning_rate(chunk.round)
        pull = local.proximal + local.weight_decay
        if local.optimizer == "sgd" and not local.momentum:
            self._push(stack.params, batch, stack.params, 1.0 - rate * pull, -rate, chunk, step)
            if local.proximal:
                for param, old in zip(stack.params, origin, strict=True):
                    param.add_(old, alpha=rate * local.proximal)
            for param, drift in zip(stack.params, stack.drift, strict=False):  # there are none without SCAFFOLD
                param.sub_(drift, alpha=rate)
            return
        adam = local.optimizer == "adam"
        into = [torch.zeros_like(param) for param in stack.params] if adam else stack.first
        self._push(stack.params, batch, into, 0.0 if adam else local.momentum, 1.0, chunk, step)
        for gradient, param, old in zip(into, stack.params, origin, strict=True):
            if local.weight_decay:
                gradient.add_(param, alpha=local.weight_decay)
            if local.proximal:  # the difference first: Adam would make a step of a zero's rounding error
                gradient.add_(param - old, alpha=local.proximal)
        if not adam:
            for param, moment in zip(stack.params, stack.first, strict=True):
                param.sub_(moment, alpha=rate)
            return
        stack.taken += 1
        for param, gradient, first, second in zip(stack.params, into, stack.first, stack.second, strict=True):
            taken = stack.taken.view(-1, *(1,) * (param.dim() - 1))
            first.lerp_(gradient, 1 - _BETAS[0])
            second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
            spread = (second / (1 - _BETAS[1] ** taken)).sqrt_().add_(_EPSILON)
            param.sub_(first / (1 - _BETAS[0] ** taken) / spread, alpha=rate)

    def _push(
        self,
        params: list[Tensor],
        batch: Batch,
        into: list[Tensor],
        beta: float,
        alpha: float,
        chunk: Chunk,
        step: int,
    ) -> None:
        """into ← beta · into + alpha · (what the optimizer may see of the data)."""
        if not self._job.private:
            self._gradients.push(params, batch, into, beta, alpha)
            return
        alpha /= self._job.privacy.batch
        self._gradients.push(params, batch, into, beta, alpha)
        keys = randomness.key(self._job.seed, Purpose.NOISE, chunk.round, chunk.sites[: len(params[0])], step)
        size = self._layout.size
        drawn = (
            torch.from_numpy(randomness.normal(keys, size))
            if self._device == "cpu"
            else noise.normal(keys, size, self._device)
        )
        for target, part in zip(into, self._slices, strict=True):
            target.add_(drawn[:, part].view_as(target), alpha=alpha * self._job.deviation(self._layout.size))
