"""Groups of a cohort, and the noise of a sum: of production's deviation, and no less than the claim counts on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedsite.client.work import noise as production
from fedsite.models import sum_noise
from fedsite.privacy.sampling import SeededSource
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest, Noise
from fedsite.simulations.vectorised import groups
from fedsite.simulations.vectorised.job import Job
from fedsite.simulations.vectorised.sums import BOUND, Sum
from tests.simulated_jobs import BOTH, job, population, secured

SITES, NUMBERS = 6, 30_000


def noised(work: Job, number: int = 1, group: int = 0) -> Sum:
    total = Sum.empty(NUMBERS)
    total.counted(np.ones(SITES, np.int64))
    groups.add_noise(work, total, number, group)
    return total


def members(work: Job, sites: int, number: int = 1, *, compared: bool = True) -> list[list[int]]:
    cut = groups.cut(work, population("value", (3,) * 10), np.arange(sites), number, compared=compared, size=2)
    return [sorted(np.concatenate([chunk.sites for chunk in chunks]).tolist()) for chunks in cut]


def test_a_cohort_is_cut_as_the_plan_says() -> None:
    work = secured(groups=3)
    assert members(work, 10, compared=False) == [list(range(10))]
    cut = members(work, 10)
    assert [len(own) for own in cut] == [4, 3, 3]
    assert sorted(site for own in cut for site in own) == list(range(10))
    assert cut != members(work, 10, number=2)
    # No group below the fewest sites that may be summed; without secure aggregation the host sees every site.
    assert len(members(work, 7)) == 2
    alone = groups.cut(job(), population("value"), np.arange(3), 1, compared=True, size=2)
    assert [[(chunk.sites.tolist(), chunk.apart) for chunk in chunks] for chunks in alone] == [
        [([2, 0], True)],
        [([1], True)],
    ]


def test_a_sum_holds_the_noise_that_sites_would_add() -> None:
    work = secured()
    site = work.privacy.site
    spread = groups.deviation(work, SITES)
    assert spread == site.noise_multiplier * site.clip * math.sqrt(SITES / work.protection.terms.honest)
    found = noised(work).mean() * SITES
    assert found.std() == pytest.approx(spread, rel=0.02)
    assert abs(found.mean()) < 5 * spread / math.sqrt(NUMBERS)
    terms = Manifest(
        purpose="train",
        plan_hash="00" * 32,
        sites=64,
        fields=(Field(name="delta/w", shape=(NUMBERS,), bound=site.clip, weighted=False),),
        terms=work.protection.terms,
        noise=(Noise(prefix="delta/", clip=site.clip, multiplier=site.noise_multiplier),),
    )
    zeros = {"delta/w": np.zeros(NUMBERS)}
    real = sum(
        production.noised(zeros, terms, SeededSource((1, place)), simulated=True).astype(np.float64)
        for place in range(SITES)
    )
    assert np.std(real) / terms.scales["delta/w"] == pytest.approx(found.std(), rel=0.02)


def test_the_claim_counts_on_no_more_noise_than_there_is() -> None:
    work = secured()
    least = groups.deviation(work, work.protection.terms.honest) / work.privacy.site.clip
    claimed = sum_noise.equivalent(work.privacy, work.protection, work.privacy.site.noise_multiplier, NUMBERS)
    assert 0.97 * least < claimed < least
    assert groups.deviation(work, 1) == groups.deviation(work, work.protection.terms.honest)


def test_noise_is_drawn_once_for_a_round_and_a_group() -> None:
    work = secured()
    assert np.array_equal(noised(work).total, noised(work).total)
    draws = [noised(work, number, group).total for number, group in ((1, 0), (1, 1), (2, 0))]
    for place in range(3):
        assert abs(np.corrcoef(draws[place], draws[place - 1])[0, 1]) < 5 / math.sqrt(NUMBERS)


def test_what_a_site_can_send_is_bounded_as_in_production() -> None:
    assert (secured().bound, job().bound) == (secured().protection.bound, BOUND)
    assert secured(BOTH).private
    assert not secured().private
