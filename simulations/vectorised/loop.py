"""The plain loop: one site after the other, one unit's gradient after the other. Slow, for any model; the oracle."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsite.models import losses, vector
from fedsite.privacy import clipping
from fedsite.simulations.vectorised import randomness
from fedsite.simulations.vectorised.executor import Order, finish
from fedsite.simulations.vectorised.job import Job, Layout
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.randomness import Purpose
from fedsite.simulations.vectorised.schedule import Chunk, Schedule, schedule
from fedsite.simulations.vectorised.sums import Sum


class Loop:
    """Trains with torch's own optimizers, as client/work/train.py does."""

    name: ClassVar[str] = "loop"

    def __init__(self, job: Job, population: Population) -> None:
        self._job = job
        self._population = population
        self._module = job.module()
        self._trained = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        self._criterion = losses.loss_function(job.loss)
        self._x = torch.from_numpy(population.x)
        self._y = torch.from_numpy(population.targets(job.loss))
        self._layout = Layout.of(self._module)

    def update(self, order: Order, chunk: Chunk, total: Sum) -> None:
        """Train every site of a chunk as ordered and add its update to `total`.

        Raises:
            ConfigError: training diverged.
        """
        plan = schedule(self._job, self._population, chunk)
        found = torch.empty((len(chunk.sites), self._layout.size))
        drift = order.drift(chunk.sites)
        for place, site in enumerate(chunk.sites.tolist()):
            vector.load(self._module, order.weights)
            start = [parameter.detach().clone() for parameter in self._trained]
            self._train(plan, place, chunk.round, site, start, [] if drift is None else self._parts(drift[place]))
            pairs = zip(self._trained, start, strict=True)
            found[place] = torch.cat([(parameter.detach() - old).flatten() for parameter, old in pairs])
        finish([found], self._job, self._population, order, chunk, total)

    def _parts(self, flat: NDArray[np.float32]) -> list[Tensor]:
        """Of each parameter."""
        return [torch.from_numpy(part) for part in self._layout.named(flat).values()]

    def _train(
        self, plan: Schedule, place: int, round_number: int, site: int, start: list[Tensor], drift: list[Tensor]
    ) -> None:
        job, optimizer = self._job, self._optimizer(round_number)
        for step in range(int(plan.steps[place])):
            count = int(plan.counts[place, step])
            rows = torch.from_numpy(plan.rows[place, step, :count])
            if job.private:
                unit = np.arange(count) if plan.unit is None else plan.unit[place, step, :count]
                noise = randomness.key(job.seed, Purpose.NOISE, round_number, site, step)[0]
                found = self._private(rows, unit, noise)
            elif count:
                found = list(self._gradient(rows))
            else:
                continue
            if drift:
                found = [gradient + own for gradient, own in zip(found, drift, strict=True)]
            for parameter, gradient, origin in zip(self._trained, found, start, strict=True):
                if job.local.proximal:
                    gradient = gradient + job.local.proximal * (parameter.detach() - origin)
                parameter.grad = gradient
            optimizer.step()

    def _gradient(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Of the mean loss of some windows."""
        loss = self._criterion(self._module(self._x[rows]), self._y[rows]).mean()
        return torch.autograd.grad(loss, self._trained)

    def _private(self, rows: Tensor, unit: np.ndarray, noise: np.uint64) -> list[Tensor]:
        """Σ over units of their clipped gradients, noised and divided by the plan's batch."""
        privacy = self._job.privacy
        found = np.zeros(self._layout.size)
        for number in np.unique(unit):
            parts = self._gradient(rows[torch.from_numpy(unit == number)])
            flat = torch.cat([part.flatten() for part in parts]).numpy()
            found += clipping.clip_rows(flat[None], privacy.clip)[0]
        found += self._job.deviation(len(found)) * randomness.normal(np.array(noise), len(found))
        pieces = self._layout.named(found / privacy.batch).values()
        return [torch.from_numpy(piece).float() for piece in pieces]

    def _optimizer(self, round_number: int) -> torch.optim.Optimizer:
        local, rate = self._job.local, self._job.learning_rate(round_number)
        if local.optimizer == "adam":
            return torch.optim.Adam(self._trained, lr=rate, weight_decay=local.weight_decay)
        return torch.optim.SGD(self._trained, lr=rate, momentum=local.momentum, weight_decay=local.weight_decay)
