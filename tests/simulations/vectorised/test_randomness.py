"""Counter-based draws: the same for everybody who asks, fair, and never shared by two purposes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.simulations.vectorised import randomness
from fedsite.simulations.vectorised.randomness import Purpose


@settings(max_examples=30)
@given(st.integers(0, 2**63), st.integers(1, 1000), st.lists(st.integers(0, 2**31), min_size=1, max_size=5))
def test_a_key_is_the_same_alone_and_in_company(seed: int, number: int, sites: list[int]) -> None:
    together = randomness.key(seed, Purpose.NOISE, number, np.array(sites))
    assert together.tolist() == [randomness.key(seed, Purpose.NOISE, number, site)[0] for site in sites]


def test_a_stream_can_be_entered_anywhere() -> None:
    keys = randomness.key(5, Purpose.BATCH, np.arange(3))
    assert np.array_equal(randomness.bits(keys, 10)[:, 4:], randomness.bits(keys, 6, 4))


def test_every_coordinate_of_a_key_matters() -> None:
    keys = [
        randomness.key(seed, purpose, number, site, step)[0]
        for seed in (0, 1)
        for purpose in Purpose
        for number in (0, 1)
        for site in (0, 1)
        for step in (0, 1)
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("count", [200_000, 200_001])
def test_normal_draws_are_normal(count: int) -> None:
    draws = randomness.normal(randomness.key(1, Purpose.NOISE, 4), count)[0].astype(np.float64)
    assert draws.shape == (count,)
    assert abs(draws.mean()) < 5 / np.sqrt(count)
    assert abs(draws.var() - 1) < 5 * np.sqrt(2 / count)
    assert abs((draws**4).mean() - 3) < 5 * np.sqrt(96 / count)
    assert abs((np.abs(draws) > 2).mean() - 0.0455) < 0.003
    assert abs(np.corrcoef(draws[: count // 2], draws[-(count // 2) :])[0, 1]) < 5 / np.sqrt(count / 2)


def test_a_draw_is_below_its_threshold_as_often_as_it_says() -> None:
    draws = randomness.bits(randomness.key(2, Purpose.BATCH), 100_000)
    assert abs((draws < randomness.threshold(0.072)).mean() - 0.072) < 0.005
    assert not (draws < randomness.threshold(0.0)).any()


@given(st.integers(0, 2**32), st.integers(1, 50), st.integers(1, 60), st.integers(1, 60))
def test_a_cohort_is_drawn_without_replacement(seed: int, number: int, population: int, size: int) -> None:
    found = randomness.cohort(seed, number, population, size)
    assert len(set(found.tolist())) == len(found) == min(size, population)
    assert found.tolist() == sorted(found.tolist())
    assert 0 <= found.min() <= found.max() < population


def test_every_site_has_its_turn() -> None:
    turns = np.bincount(np.concatenate([randomness.cohort(1, number, 50, 10) for number in range(1000)]), minlength=50)
    assert 150 < turns.min() <= turns.max() < 250


def test_a_cohort_of_a_large_population_is_the_lowest_draws() -> None:
    draws = randomness.bits(randomness.key(3, Purpose.COHORT, 8)[0], 200_000)
    wanted = np.sort(np.argsort(draws)[:1000])
    assert randomness.cohort(3, 8, 200_000, 1000).tolist() == wanted.tolist()
