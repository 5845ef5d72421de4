"""What an executor is: a way of training a chunk of sites. All of them give the same updates; they differ in speed.

How a chunk ends is the same for all: `finish`. A kernel may put its updates into the sum by itself where they are
neither clipped nor anything else is made of them: `fused`.

Source: SCAFFOLD, Karimireddy et al. 2020 (arXiv:1910.06378), algorithm 1, line 12, option II.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsite.privacy import clipping
from fedsite.simulations.vectorised.controls import Controls
from fedsite.simulations.vectorised.job import Job, Weights
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.schedule import Chunk
from fedsite.simulations.vectorised.sums import BOUND, STEPS, Sum, diverged

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the server sends for one round: the same for every site."""

    weights: Weights
    control: NDArray[np.float32] | None = None  # SCAFFOLD's c [number], in the order of `Layout`, as a gradient
    controls: Controls | None = None  # the sites' c_i; there is one where there is a `control`

    def drift(self, sites: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """c − c_i [C, number], which every step adds to its gradient; None without SCAFFOLD."""
        if self.control is None or self.controls is None:
            return None
        found: NDArray[np.float32] = self.control - self.controls.rows(sites)
        return found


class Executor(Protocol):
    """Made once for a job and a population; keeps no site's state between chunks."""

    name: ClassVar[str]

    def update(self, order: Order, chunk: Chunk, total: Sum) -> None:
        """Train every site of a chunk as ordered and add its update to `total`.

        Raises:
            ConfigError: training diverged.
        """


def fused(job: Job, order: Order, chunk: Chunk) -> bool:
    """Whether updates may go into one sum as they are, times their weight."""
    plain = order.control is None and not job.privacy.site_level
    return plain and chunk.gains is None and not chunk.apart


def site_weights(job: Job, population: Population, order: Order, chunk: Chunk) -> NDArray[np.int64]:
    """A site's weight in the mean, as in production: its windows, or 1 where their number is private.

    SCAFFOLD's mean is over sites too.
    """
    counted = job.privacy.mode == "none" and order.control is None
    return population.sizes(chunk.sites) if counted else np.ones(len(chunk.sites), np.int64)


def finish(deltas: list[Tensor], job: Job, population: Population, order: Order, chunk: Chunk, total: Sum) -> None:
    """End a chunk: new control variates, site-level clipping, gains, and the weighted sum.

    Args:
        deltas: updates of the chunk's sites [C, ...] float32 in the order of `Layout`, of each parameter, or one tensor
            [C, number] of all of them; overwritten.
        job: what was trained.
        population: for the weights.
        order: what was asked.
        chunk: whose updates these are.
        total: they are added to it, or to its rows.

    Raises:
        ConfigError: an update is not finite, or out of bounds.
    """
    import torch

    weights = site_weights(job, population, order, chunk)
    total.counted(weights)
    if not fused(job, order, chunk):
        flat = deltas[0].flatten(1) if len(deltas) == 1 else torch.cat([delta.flatten(1) for delta in deltas], 1)
        flat = flat.cpu()
        _checked(flat, job, chunk.round, math.inf if job.privacy.site_level else BOUND)
        deltas = [_transformed(flat, job, order, chunk)]
    if not chunk.apart:
        add_deltas(deltas, total.total, weights, job, chunk.round)
        return
    for place, row in enumerate(total.total):
        one = slice(place, place + 1)
        add_deltas([delta[one] for delta in deltas], row, weights[one], job, chunk.round)


def _transformed(flat: Tensor, job: Job, order: Order, chunk: Chunk) -> Tensor:
    """What a chunk's updates [C, number] become on their way into the sum."""
    import torch

    drift = order.drift(chunk.sites)
    if drift is not None and order.controls is not None:
        flat.clamp_(-job.bound, job.bound)  # what the server counts, and so must count here
        pace = job.local.steps * job.learning_rate(chunk.round)
        order.controls.write(chunk.sites, np.negative(drift) - (flat / pace).numpy())
    if job.privacy.site_level:
        norms = np.linalg.norm(flat.numpy().astype(np.float64), axis=1)
        factor = clipping.factors(norms, job.privacy.site.clip)
        flat = flat * torch.from_numpy(factor.astype(np.float32))[:, None]
    if chunk.gains is not None:
        # As much as reaches the server: an update's coordinates have a bound there.
        flat = (flat * torch.from_numpy(chunk.gains)[:, None]).clamp_(-job.bound, job.bound)
    return flat


def _checked(delta: Tensor, job: Job, round_number: int, bound: float = BOUND) -> float:
    """The largest coordinate of some updates, which is below `bound`.

    Raises:
        ConfigError: it is not finite, or out of bounds.
    """
    import torch

    low, high = (float(value) for value in torch.aminmax(delta))
    if not (low > -bound and high < bound):  # NaN fails both
        raise diverged(round_number, job.learning_rate(round_number))
    return max(-low, high)


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

    start, total = 0, torch.from_numpy(into)
    for delta in deltas:
        largest = _checked(delta, job, round_number)
        steps = delta.mul_(STEPS).round_().flatten(1)
        part = total[start : start + steps.shape[1]]
        if largest * STEPS * int(weights.sum()) < 2.0**53:
            # All sums on the way are whole numbers that a float64 holds: exact in any order, and a product is quick.
            part += (torch.from_numpy(weights).to(steps.device).double() @ steps.double()).to(torch.int64).cpu()
        else:
            for row, weight in zip(steps, weights.tolist(), strict=True):
                part.add_(row.to(torch.int64).cpu(), alpha=weight)
        start += steps.shape[1]
