"""Draws: their distribution, their exactness at the ends, and who may use which source."""

import numpy as np
import pytest

from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.sampling import SeededSource, SystemRandom, choose, poisson, require_secure


class Fixed:
    """A source whose bits are given."""

    seeded = False

    def __init__(self, *bits: int) -> None:
        self._bits = np.array(bits, dtype=np.uint64)

    def bits(self, n: int) -> np.ndarray:
        return self._bits[:n]


def test_poisson_compares_integers_exactly():
    half = 2**63
    assert poisson(4, 0.5, Fixed(0, half - 1, half, 2**64 - 1)).tolist() == [0, 1]
    assert poisson(1, 2.0**-64, Fixed(0)).tolist() == [0]
    assert poisson(1, 2.0**-64, Fixed(1)).tolist() == []
    assert poisson(1, 2.0**-70, Fixed(0)).tolist() == []  # rounded down, never up
    assert poisson(3, 0.0, Fixed(0, 0, 0)).tolist() == []
    assert poisson(3, 1.0, SystemRandom()).tolist() == [0, 1, 2]
    assert poisson(0, 0.5, SystemRandom()).tolist() == []


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
def test_poisson_refuses_what_is_no_probability(q):
    with pytest.raises(PrivacyError, match="sampling rate"):
        poisson(3, q, SystemRandom())


def test_poisson_sizes_are_binomial():
    source = SeededSource(1)
    sizes = np.array([len(poisson(500, 0.1, source)) for _ in range(2000)])
    assert sizes.mean() == pytest.approx(50, abs=0.6)
    assert sizes.var() == pytest.approx(45, rel=0.15)


@pytest.mark.parametrize("source", [SystemRandom(), SeededSource(2)])
def test_normal_draws(source):
    draws = source.normal(200_001)
    assert draws.shape == (200_001,)
    assert abs(draws.mean()) < 0.015
    assert draws.std() == pytest.approx(1.0, abs=0.012)
    assert (np.abs(draws) < 1.959964).mean() == pytest.approx(0.95, abs=0.004)
    assert np.abs(draws).max() < 8.6


def test_uniform_draws_are_in_the_half_open_interval():
    found = SeededSource(3).uniform(10_000)
    assert found.min() > 0.0
    assert found.max() <= 1.0
    assert np.all(found * 2**53 == np.rint(found * 2**53))


def test_choose_is_a_subset_and_each_index_is_as_likely():
    source = SeededSource(4)
    counts = np.zeros(6)
    for _ in range(3000):
        picked = choose(6, 2, source)
        assert len(set(picked.tolist())) == 2
        counts[picked] += 1
    assert np.all(np.abs(counts - 1000) < 130)
    assert choose(3, 5, source).tolist() == [0, 1, 2]


def test_a_seed_repeats_and_is_refused_where_it_matters():
    assert np.array_equal(SeededSource(7).bits(5), SeededSource(7).bits(5))
    assert not np.array_equal(SeededSource((7, 1)).bits(5), SeededSource((7, 2)).bits(5))
    assert not np.array_equal(SystemRandom().bits(5), SystemRandom().bits(5))
    require_secure(SystemRandom())
    with pytest.raises(PrivacyError, match="seeded") as caught:
        require_secure(SeededSource(7))
    assert "remove the seed" in caught.value.next_step
