"""Which windows enter which step of which site: drawn for a chunk of sites at once, the same for every executor.

A cohort is sorted by its sites' samples and cut into chunks before anybody asks how many workers there are: so a site
trains in the same company, and with the same bits, whoever trains it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsite.client.work.train_private import ENTITY_WINDOWS
from fedsite.protocol.errors import DataError
from fedsite.simulations.vectorised import randomness
from fedsite.simulations.vectorised.job import Job
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.randomness import Purpose

CHUNK: Final = 20  # sites: their stacked weights should stay in the processor's cache
_WIDE: Final = 1 << 27  # parameters of all sites of a chunk on a GPU (0.5 GiB; several copies are held)
_MOST: Final = 4096  # sites of such a chunk: its batches are drawn at once
_DRAWS: Final = 1 << 20  # hashes held at once (8 MiB)
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Sites that are trained together in one round, those with most samples first."""

    round: int
    sites: Ints  # [site] numbers in the population
    gains: NDArray[np.float32] | None = None  # [site] what updates are multiplied by after clipping; None: by 1
    apart: bool = False  # every site's update is a sum of its own

    def part(self, pick: slice) -> Chunk:
        """Some of the sites."""
        return replace(self, sites=self.sites[pick], gains=None if self.gains is None else self.gains[pick])


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Batches of the sites of a chunk; places beyond a batch's count hold the site's first window.

    Shapes: C sites, S steps, B places. `rows` [C, S, B] windows of the population; `counts` [C, S] rows of a batch;
    `steps` [C], falling; `unit` [C, S, B] privacy units of a batch, numbered from 0 and in order, or None where every
    window is its own.
    """

    rows: Ints
    counts: Ints
    steps: Ints
    unit: Ints | None = None


def chunk_sites(device: str, numbers: int) -> int:
    """How many sites with so many parameters each are trained together; a GPU is idle with few."""
    return CHUNK if device == "cpu" else min(_MOST, max(CHUNK, _WIDE // max(numbers, 1)))


def chunks(
    population: Population,
    sites: Ints,
    round_number: int,
    size: int = CHUNK,
    gains: NDArray[np.float32] | None = None,
) -> list[Chunk]:
    """Cut a cohort into chunks of `size` sites at most; sites of equal samples stay in order.

    `gains` are of every site of the population.

    Raises:
        DataError: a site has no windows.
    """
    counts = population.sizes(sites)
    if len(sites) and not counts.min():
        raise DataError(
            f"site {sites[counts.argmin()]} has no training windows",
            allowed="at least 1 window at every site",
            next_step="leave such sites out of the population",
        )
    ordered = sites[np.argsort(-counts, kind="stable")]
    whole = Chunk(round=round_number, sites=ordered, gains=None if gains is None else gains[ordered])
    pieces = math.ceil(len(sites) / size)
    # Of like size, and an even number of them: two workers have as much to do each.
    pieces = min(pieces + pieces % 2, len(sites)) if pieces > 1 else pieces
    ends = [math.ceil(len(sites) * piece / pieces) for piece in range(pieces + 1)] if pieces else []
    return [whole.part(slice(start, end)) for start, end in pairwise(ends)]


def shards(population: Population, cut: list[Chunk], workers: int) -> list[list[Chunk]]:
    """Spread chunks over workers, each to the one with the fewest samples so far; every worker gets a list."""
    found: list[list[Chunk]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for chunk in cut:
        least = loads.index(min(loads))
        found[least].append(chunk)
        loads[least] += int(population.sizes(chunk.sites).sum())
    return found


def local_steps(job: Job, population: Population) -> int:
    """Of a site of median size, in a round."""
    if job.epochs is None:
        return job.local.steps
    return job.epochs.count * math.ceil(float(np.median(population.counts)) / job.epochs.batch)


def schedule(job: Job, population: Population, chunk: Chunk) -> Schedule:
    """The batches of a chunk, from the job's seed alone."""
    if job.epochs:
        return _shuffled(job, population, chunk)
    if job.private and job.privacy.unit == "entity":
        return _entities(job, population, chunk)
    return _poisson(job, population, chunk)


def _shuffled(job: Job, population: Population, chunk: Chunk) -> Schedule:
    assert job.epochs is not None
    batch, epochs = job.epochs.batch, job.epochs.count
    counts = population.sizes(chunk.sites)
    each = -(-counts // batch)  # steps of an epoch
    steps = each * epochs
    longest, most = int(steps.max()), int(counts.max())
    rows = np.repeat(population.offsets[chunk.sites], longest * batch).reshape(len(counts), longest * batch)
    number = np.arange(longest)
    left = counts[:, None] - number % each[:, None] * batch  # windows that an epoch has not seen before a step
    sizes = np.where(number < steps[:, None], np.minimum(left, batch), 0)
    there = np.arange(most) < counts[:, None]
    site, place = np.nonzero(there)
    keys = randomness.key(job.seed, Purpose.BATCH, chunk.round, chunk.sites)
    for epoch in range(epochs):
        draws = randomness.bits(keys, most, epoch << 32)
        draws[~there] = np.iinfo(np.uint64).max  # windows a site does not have come last
        order = np.argsort(draws, axis=1, kind="stable")
        rows[site, epoch * each[site] * batch + place] += order[site, place]
    return Schedule(rows=rows.reshape(len(counts), longest, batch), counts=sizes, steps=steps)


def _poisson(job: Job, population: Population, chunk: Chunk) -> Schedule:
    joined = _drawn(job, population.sizes(chunk.sites), chunk)
    rows, sizes = _padded(joined, len(chunk.sites), job.local.steps, population.offsets[chunk.sites])
    return Schedule(rows=rows, counts=sizes, steps=np.full(len(chunk.sites), job.local.steps))


def _drawn(job: Job, units: Ints, chunk: Chunk) -> tuple[Ints, Ints, Ints]:
    """Who joins: (site, step, unit) in this order."""
    steps = np.arange(job.local.steps)
    limit, everybody = randomness.threshold(job.local.sampling_rate), job.local.sampling_rate >= 1.0
    found = []
    block = max(1, _DRAWS // (len(steps) * int(units.max())))
    some = max(1, _DRAWS // int(units.max()))  # steps of one site, where even those of one are too many
    for start in range(0, len(units), block):
        part = slice(start, start + block)
        most = int(units[part].max())
        there = (np.arange(most) < units[part, None])[:, None, :]
        for first in range(0, len(steps), some if block == 1 else len(steps)):
            own = steps[first : first + some] if block == 1 else steps
            keys = randomness.key(job.seed, Purpose.BATCH, chunk.round, chunk.sites[part, None], own)
            site, step, unit = np.nonzero(there & (everybody | (randomness.bits(keys, most) < limit)))
            found.append((site + start, step + first, unit))
    site, step, unit = (np.concatenate(parts).astype(np.int64) for parts in zip(*found, strict=True))
    return site, step, unit


def _padded(joined: tuple[Ints, Ints, Ints], sites: int, steps: int, offsets: Ints) -> tuple[Ints, Ints]:
    """Rows [C, S, B] and counts [C, S] of windows in order of site and step."""
    site, step, window = joined
    batch = site * steps + step
    sizes = np.bincount(batch, minlength=sites * steps)
    place = np.arange(len(batch)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows = np.repeat(offsets, steps * max(int(sizes.max()), 1)).reshape(sites, steps, -1)
    rows[site, step, place] += window
    return rows, sizes.reshape(sites, steps)


def _entities(job: Job, population: Population, chunk: Chunk) -> Schedule:
    members = []
    for site in chunk.sites:
        own = population.entity[population.offsets[site] : population.offsets[site + 1]]
        members.append([np.flatnonzero(own == number) for number in np.unique(own)])
    sites, steps, units = _drawn(job, np.array([len(own) for own in members]), chunk)
    parts = []
    for site, step, unit in zip(sites.tolist(), steps.tolist(), units.tolist(), strict=True):
        own = members[site][unit]
        if len(own) > ENTITY_WINDOWS:
            stream = randomness.key(job.seed, Purpose.SUBSET, chunk.round, int(chunk.sites[site]), step, unit)
            draws = randomness.bits(stream[0], len(own))
            own = own[np.sort(np.argsort(draws, kind="stable")[:ENTITY_WINDOWS])]
        parts.append(own)
    lengths = np.array([len(own) for own in parts], np.int64)
    windows = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    joined = (np.repeat(sites, lengths), np.repeat(steps, lengths), windows)
    rows, sizes = _padded(joined, len(members), job.local.steps, population.offsets[chunk.sites])
    batch = sites * job.local.steps + steps
    drawn = np.bincount(batch, minlength=sizes.size)
    number = np.arange(len(batch)) - np.repeat(np.cumsum(drawn) - drawn, drawn)
    unit = np.zeros_like(rows)
    unit[np.arange(rows.shape[2]) < sizes[..., None]] = np.repeat(number, lengths)
    return Schedule(rows=rows, counts=sizes, steps=np.full(len(members), job.local.steps), unit=unit)
