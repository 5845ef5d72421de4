"""What an executor is: a way of training a chunk of sites. All of them give the same updates; they differ in speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsite.simulations.vectorised.job import Job, Weights
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.schedule import Chunk
from fedsite.simulations.vectorised.sums import Sum, diverged

if TYPE_CHECKING:
    from torch import Tensor


class Executor(Protocol):
    """Made once for a job and a population; keeps no site's state between chunks."""

    name: ClassVar[str]

    def update(self, weights: Weights, chunk: Chunk, total: Sum) -> None:
        """Train every site of a chunk from `weights` and add its update to `total`.

        Raises:
            ConfigError: training diverged.
        """


def site_weights(job: Job, population: Population, chunk: Chunk) -> NDArray[np.int64]:
    """A site's weight in the mean, as in production: its windows, or 1 where their number is private."""
    return population.counts[chunk.sites] if job.privacy.mode == "none" else np.ones(len(chunk.sites), np.int64)


def add_deltas(
    deltas: list[Tensor], into: NDArray[np.int64], weights: NDArray[np.int64], job: Job, round_number: int
) -> None:
    """Put updates on the grid and add them up.

    Args:
        deltas: of each parameter [site, ...] float32; overwritten.
        into: all parameters one after the other, [number].
        weights: [site].
        job: for the message.
        round_number: for the message.

    Raises:
        ConfigError: an update is not finite, or out of bounds.
    """
    import torch

    from fedsite.simulations.vectorised.sums import BOUND, STEPS

    start, total = 0, torch.from_numpy(into)
    for delta in deltas:
        low, high = torch.aminmax(delta)
        if not (low > -BOUND and high < BOUND):  # NaN fails both
            raise diverged(round_number, job.learning_rate(round_number))
        steps = delta.mul_(STEPS).round_().flatten(1)
        part = total[start : start + steps.shape[1]]
        if max(-float(low), float(high)) * STEPS * int(weights.sum()) < 2.0**53:
            # All sums on the way are whole numbers that a float64 holds: exact in any order, and a product is quick.
            part += (torch.from_numpy(weights).double() @ steps.double()).to(torch.int64)
        else:
            for row, weight in zip(steps, weights.tolist(), strict=True):
                part.add_(row.to(torch.int64), alpha=weight)
        start += steps.shape[1]
