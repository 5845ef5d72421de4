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
from tests.simulated_jobs import BOTH, job, secured

SITES, NUMBERS = 6, 30_000


def noised(work: Job, number: int = 1, group: int = 0) -> Sum:
    total = Sum.empty(NUMBERS)
    total.counted(np.ones(SITES, np.int64))
    groups.add_noise(work, total, number, group)
    return total


def test_a_cohort_is_cut_as_the_plan_says() -> None:
    sites, work = np.arange(10), secured(groups=3)
    assert [own.tolist() for own in groups.groups(work, sites, 1, compared=False)] == [list(range(10))]
    cut = groups.groups(work, sites, 1, compared=True)
    assert [len(own) for own in cut] == [4, 3, 3]
    assert sorted(np.concatenate(cut).tolist()) == list(range(10))
    assert [own.tolist() for own in cut] != [own.tolist() for own in groups.groups(work, sites, 2, compared=True)]
    # No group below the fewest sites that may be summed; without secure aggregation the host sees every site.
    assert len(groups.groups(work, sites[:7], 1, compared=True)) == 2
    assert [own.tolist() for own in groups.groups(job(), sites[:2], 1, compared=True)] == [[0], [1]]


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
