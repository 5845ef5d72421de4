"""Which sites of a cohort are summed together, and the noise that such a sum holds under site-level privacy.

A strategy that streams its updates sees one sum of all, whatever the plan's groups: a mean of means is a mean. One that
compares updates sees a sum for each of `protection.groups` under secure aggregation, and each site by itself without.

Source: Kairouz, Liu and Steinke 2021, "The Distributed Discrete Gaussian Mechanism": what sites add in parts. Here it
is drawn once, Gaussian and of the same deviation, because nobody sees the parts.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsite.simulations.vectorised import randomness, schedule
from fedsite.simulations.vectorised.job import Job
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.randomness import Purpose
from fedsite.simulations.vectorised.schedule import Chunk, Ints
from fedsite.simulations.vectorised.sums import STEPS, Sum

_BLOCK = 1 << 20  # numbers noised at a time


def cut(
    job: Job,
    population: Population,
    sites: Ints,
    round_number: int,
    *,
    compared: bool,
    size: int = schedule.CHUNK,
    gains: NDArray[np.float32] | None = None,
) -> list[list[Chunk]]:
    """Cut the sites of a round into sums, and these into chunks.

    The central host shuffles, so that nobody chooses their company. Sites that it sees one by one still train together:
    each such chunk is here by itself, its sites `apart`.

    Args:
        job: its protection says into how many.
        population: for the sites' samples.
        sites: whose updates arrive.
        round_number: from 1.
        compared: whether the strategy compares updates.
        size: sites of a chunk, at most.
        gains: of every site of the population.

    Raises:
        DataError: a site has no windows.
    """
    if compared and job.protection.mode != "secagg":
        together = schedule.chunks(population, sites, round_number, size, gains)
        return [[replace(chunk, apart=True)] for chunk in together]
    room = len(sites) // job.protection.terms.min_cohort
    count = max(1, min(job.protection.groups, room)) if compared else 1
    draws = randomness.bits(randomness.key(job.seed, Purpose.GROUP, round_number)[0], len(sites))
    shuffled = sites[np.argsort(draws, kind="stable")]
    groups = [np.sort(shuffled[number::count]) for number in range(count)]
    return [schedule.chunks(population, own, round_number, size, gains) for own in groups]


def deviation(job: Job, sites: int) -> float:
    """Of the noise in each number of a sum over so many sites, in the update's units.

    Each site adds variance (σ · clip)² / honest, as if no more than the fewest honest ones took part: so a larger sum
    holds more noise, and never less than the plan's claim counts on.
    """
    site, honest = job.privacy.site, job.protection.terms.honest
    return site.noise_multiplier * site.clip * math.sqrt(max(1.0, sites / honest))


def add_noise(job: Job, total: Sum, round_number: int, group: int) -> None:
    """Add the noise of a group's sum, in whole grid steps: the same numbers however many workers summed."""
    spread = deviation(job, total.sites) * STEPS
    key = randomness.key(job.seed, Purpose.SUM_NOISE, round_number, group, np.arange(-(-len(total.total) // _BLOCK)))
    for block, stream in enumerate(key):
        part = total.total[block * _BLOCK : (block + 1) * _BLOCK]
        part += np.rint(randomness.normal(np.array(stream), len(part)) * np.float64(spread)).astype(np.int64)
