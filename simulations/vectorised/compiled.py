"""Shipped models in compiled kernels, one site after the other with its weights in cache; needs the extra `fast`.

Compiled at first use for this very processor (kernel_cache.py).
"""

from __future__ import annotations

import importlib.util
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray

from fedsite.simulations.vectorised import randomness
from fedsite.simulations.vectorised.dense import dense
from fedsite.simulations.vectorised.executor import Order, finish, fused, site_weights
from fedsite.simulations.vectorised.job import Job, Layout
from fedsite.simulations.vectorised.kernel_cache import cached as cached
from fedsite.simulations.vectorised.kernel_cache import warm as warm
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.program import Program
from fedsite.simulations.vectorised.randomness import Purpose
from fedsite.simulations.vectorised.schedule import Chunk, Ints, Schedule, local_steps, schedule
from fedsite.simulations.vectorised.sums import Sum, diverged

_LOSSES: Final = {"mse": 0, "reconstruction": 0, "cross_entropy": 1, "binary_cross_entropy": 2}
# Compiling takes half a minute. For dense layers it saves most of 0.5 ns for each weight and window, for others a
# millisecond or more of each step.
PRODUCTS: Final = 60_000_000_000
STEPS: Final = 10_000
_SHORT: Final = "kernels are not compiled here yet, which pays from {}; this run has {}"
_NO_ROWS: Final = np.zeros((0, 0), np.float32)


def obstacle(job: Job, device: str) -> str | None:
    """Why a model that kernels know cannot be trained by them here, or None."""
    if device != "cpu":
        return f"kernels run on the CPU, not on {device}"
    if job.local.optimizer != "sgd":
        return f"optimizer {job.local.optimizer} has no kernel"
    if job.private and job.privacy.unit == "entity":
        return "privacy.unit entity has no kernel"
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install 'fedsite[fast]')"
    return None


def too_short(job: Job, population: Population, trainings: int) -> str | None:
    """Why a run is over before kernels are compiled, or None where it is not, or they are there already.

    Args:
        job: what sites do.
        population: whose data it is.
        trainings: of sites in the whole run.
    """
    if cached():
        return None
    steps = trainings * local_steps(job, population)
    if dense(job) is None:
        return None if steps >= STEPS else _SHORT.format(f"{STEPS:,} local steps of sites", f"{steps:,}")
    if job.epochs:
        windows = trainings * job.epochs.count * float(np.median(population.counts))
    else:
        windows = steps * job.local.sampling_rate * float(np.median(population.counts))
    products = int(windows) * Layout.of(job.module()).size
    return None if products >= PRODUCTS else _SHORT.format(f"{PRODUCTS:.0e} products", f"{products:.0e}")


class Compiled:
    """Calls the kernels."""

    name: ClassVar[str] = "compiled"

    def __init__(self, job: Job, population: Population, program: Program) -> None:
        self._job = job
        self._population = population
        self._program = program
        self._layout = Layout.of(job.module())
        # Kernels are compiled for arrays that could be written; one that could not is copied.
        self._x = np.require(population.x.reshape(len(population.x), -1), np.float32, ("C", "W"))
        target = population.targets(job.loss)
        classes = job.loss == "cross_entropy"
        # A kernel takes both; the one that a loss does not read is empty.
        self._classes = np.require(target, np.int64, ("C", "W")) if classes else np.zeros(0, np.int64)
        self._wanted = np.zeros((0, 1), np.float32) if classes else _floats(target)

    def update(self, order: Order, chunk: Chunk, total: Sum) -> None:
        """Train every site of a chunk as ordered and add its update to `total`.

        Raises:
            ConfigError: training diverged.
        """
        plan = schedule(self._job, self._population, chunk)
        if fused(self._job, order, chunk):
            counted = site_weights(self._job, self._population, order, chunk)
            total.counted(counted)
            self._train(order, chunk, plan, counted, total.total, _NO_ROWS)
            return
        found = np.zeros((len(chunk.sites), self._layout.size), np.float32)
        self._train(order, chunk, plan, np.zeros(len(found), np.int64), total.total, found)
        finish([torch.from_numpy(found)], self._job, self._population, order, chunk, total)

    def _train(
        self, order: Order, chunk: Chunk, plan: Schedule, counted: Ints, total: Ints, updates: NDArray[np.float32]
    ) -> None:
        """Add the sites' updates, times `counted` [C], to `total` [number], or put them into `updates` [C, number]."""
        job, local, privacy, program = self._job, self._job.local, self._job.privacy, self._program
        rate = job.learning_rate(chunk.round)
        values, rows, deltas = program.spread(plan.rows.shape[2])
        drift = order.drift(chunk.sites)
        single = np.float32
        lost = warm().train_chunk(
            plan.rows,
            plan.counts,
            plan.steps,
            self._x,
            self._wanted,
            self._classes,
            self._layout.flat(order.weights),
            program.table,
            values,
            program.tables,
            program.runs,
            (program.size, rows, deltas, program.turned, program.prefix),
            _LOSSES[job.loss],
            (single(rate), single(local.momentum), single(local.weight_decay), single(local.proximal)),
            (
                single(privacy.clip if job.private else 0.0),
                single(job.deviation(self._layout.size) if job.private else 0.0),
                single(privacy.batch if job.private else 1.0),
            ),
            randomness.key(job.seed, Purpose.NOISE, chunk.round, chunk.sites[:, None], np.arange(plan.counts.shape[1])),
            _NO_ROWS if drift is None else drift,
            counted,
            total,
            updates,
        )
        if lost:
            raise diverged(chunk.round, rate)


def _floats(target: np.ndarray) -> np.ndarray:
    """Targets as [window, number] float32; a view where they are that already."""
    return np.require(target.reshape(len(target), -1), np.float32, ("C", "W"))
