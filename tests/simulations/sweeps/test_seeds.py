"""Means and intervals over seeds, by hand."""

from __future__ import annotations

import pytest

from fedsite.simulations.sweeps import seeds


def test_an_interval_fits_on_paper() -> None:
    # 1, 2, 3: deviation 1, t of two degrees of freedom 4.303, so 4.303 / sqrt 3.
    found = seeds.estimate([1.0, None, 2.0, 3.0])
    assert found is not None
    assert (found.mean, found.seeds) == (2.0, 3)
    assert found.half == pytest.approx(2.4843, abs=1e-4)
    assert (found.low, found.high) == pytest.approx((2 - 2.4843, 2 + 2.4843), abs=1e-4)


def test_one_seed_has_no_interval_and_none_has_no_mean() -> None:
    one = seeds.estimate([0.5])
    assert one is not None
    assert one.half is None
    assert seeds.estimate([None]) is None


def test_many_seeds_are_near_the_normal() -> None:
    assert seeds.quantile(30) > seeds.quantile(31) == seeds.NORMAL
