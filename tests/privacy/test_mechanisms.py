"""The Gaussian mechanism: its spread, its grid, and what it refuses. Clipping: one record, one bound."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedsite.privacy import clipping
from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.mechanisms import gaussian, grid_step, noised_sum, standard_deviation, summed
from fedsite.privacy.sampling import SeededSource, SystemRandom


@given(st.floats(1e-9, 1e9))
def test_the_grid_is_a_power_of_two_just_below_a_millionth_of_sigma(sigma):
    step = grid_step(sigma)
    assert math.frexp(step)[0] == 0.5
    assert sigma * 2.0**-21 < step <= sigma * 2.0**-20


@pytest.mark.parametrize(("sensitivity", "multiplier"), [(1.0, 1.0), (0.3, 4.0), (12.5, 0.7)])
def test_noise_has_the_spread_that_is_accounted_for_and_lies_on_the_grid(sensitivity, multiplier):
    value = np.linspace(-3.0, 3.0, 50_000)
    noised = gaussian(value, sensitivity, multiplier, SeededSource(1))
    sigma = standard_deviation(sensitivity, multiplier, value.size)
    assert sensitivity * multiplier <= sigma < 1.001 * sensitivity * multiplier
    assert (noised - value).std() == pytest.approx(sigma, rel=0.015)
    assert abs((noised - value).mean()) < 0.02 * sigma
    step = grid_step(sensitivity * multiplier)
    assert np.all(noised / step == np.rint(noised / step))


def test_low_bits_do_not_tell_neighbours_apart():
    """Values that differ by less than the grid give the same answers with the same draws."""
    step = grid_step(2.0)
    one = gaussian(np.array([5 * step, 0.1]), 1.0, 2.0, SeededSource(3))
    other = gaussian(np.array([5.3 * step, 0.1 + 1e-12]), 1.0, 2.0, SeededSource(3))
    assert one.tolist() == other.tolist()


def test_shape_is_kept_and_draws_differ():
    value = np.zeros((3, 4))
    first, second = (gaussian(value, 1.0, 1.0, SystemRandom()) for _ in range(2))
    assert first.shape == (3, 4)
    assert not np.array_equal(first, second)
    assert len(np.unique(first)) > 6  # two draws in a million meet on the grid


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e12])
def test_values_the_grid_cannot_hold_are_refused(value):
    with pytest.raises(PrivacyError, match="outside"):
        gaussian(np.array([0.0, value]), 1.0, 1.0, SystemRandom())


@pytest.mark.parametrize(
    ("sensitivity", "multiplier"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (np.inf, 1.0), (1.0, np.nan)]
)
def test_parameters_without_a_guarantee_are_refused(sensitivity, multiplier):
    with pytest.raises(PrivacyError):
        gaussian(np.zeros(2), sensitivity, multiplier, SystemRandom())


def test_a_sum_clips_each_record():
    records = np.array([[3.0, 4.0], [0.3, 0.4], [np.nan, 1.0], [1e300, -1e300]])
    source = SeededSource(5)
    found = np.mean([noised_sum(records, 1.0, 0.01, source) for _ in range(200)], axis=0)
    tilt = math.sqrt(0.5) if np.isfinite(1e300 * 1e300) else 0.0  # a norm that overflows counts for nothing
    assert found == pytest.approx([0.6 + 0.3 + tilt, 0.8 + 0.4 - tilt], abs=0.01)


def test_a_sum_over_nobody_is_noise():
    assert noised_sum(np.zeros((0, 5)), 1.0, 1.0, SystemRandom()).shape == (5,)


def test_too_many_records_for_an_exact_sum_are_refused():
    assert summed(2.0, 1000) == pytest.approx(2.0, rel=3e-4)
    assert summed(2.0, 1000) > 2.0
    with pytest.raises(PrivacyError, match="records"):
        summed(1.0, 2**21)


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(0, 6), st.integers(1, 5)), elements=st.floats(-1e200, 1e200)),
    st.floats(1e-6, 1e6),
)
def test_no_record_exceeds_the_bound_and_small_ones_are_untouched(records, bound):
    clipped = clipping.clip_rows(records, bound)
    for before, after in zip(records, clipped, strict=True):
        assert math.hypot(*after) <= bound
        if math.hypot(*before) < bound / 2:
            assert np.array_equal(before, after)


def test_clipping_keeps_direction():
    assert clipping.clip_rows(np.array([[3.0, 4.0]]), 1.0)[0] == pytest.approx([0.6, 0.8])


def test_clipping_refuses_a_bound_of_zero():
    with pytest.raises(PrivacyError, match="clipping norm"):
        clipping.factors(np.array([1.0]), 0.0)
