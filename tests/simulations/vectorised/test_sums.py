"""Fixed-point sums: exact on toy numbers, the same in any order, loud when they do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.vectorised.executor import add_deltas
from fedsite.simulations.vectorised.sums import MOST_WEIGHT, Sum
from tests.simulated_jobs import job


def summed(deltas: list[float], weights: list[int]) -> Sum:
    found = Sum.empty(1)
    found.counted(np.array(weights))
    add_deltas([torch.tensor(deltas)[:, None]], found.total, np.array(weights), job(), 1)
    return found


def test_two_sites_weigh_what_they_have() -> None:
    found = summed([1.0, -0.5], [1, 3])
    assert (found.weight, found.sites) == (4, 2)
    assert found.mean().tolist() == [-0.125]


@given(st.lists(st.tuples(st.floats(-60, 60, width=32), st.integers(1, 2**22)), min_size=2, max_size=8))
def test_any_order_and_any_cut_give_the_same_bits(parts: list[tuple[float, int]]) -> None:
    deltas, weights = [part[0] for part in parts], [part[1] for part in parts]
    whole = summed(deltas, weights)
    backwards = summed(deltas[:0:-1], weights[:0:-1])
    backwards.add(summed(deltas[:1], weights[:1]))
    assert np.array_equal(whole.total, backwards.total)
    assert (whole.weight, whole.sites) == (backwards.weight, backwards.sites)
    exact = np.dot(np.array(deltas, np.float64), weights) / sum(weights)
    assert abs(whole.mean()[0] - exact) < 2.0**-30


@pytest.mark.parametrize("value", [64.0, -1e9, float("nan"), float("inf")])
def test_an_update_off_the_grid_has_diverged(value: float) -> None:
    with pytest.raises(ConfigError, match=r"diverged in round 1.*below 0\.1"):
        summed([value, 0.0], [1, 1])


def test_more_windows_than_the_sum_holds_are_refused() -> None:
    with pytest.raises(ConfigError, match="draw a smaller cohort"):
        summed([1.0, 1.0], [MOST_WEIGHT, 1])
