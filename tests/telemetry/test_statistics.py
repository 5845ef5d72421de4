"""Normalisation sums: what merges, what bounds one window, what comes out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedsite.telemetry import loading, statistics
from fedsite.telemetry.dataset import Windows

LOW = np.array([0.0, -1.0], dtype=np.float32)
HIGH = np.array([10.0, 1.0], dtype=np.float32)


def test_mean_and_deviation_in_the_channels_units():
    x = np.array([[[2, 0]], [[8, 0]]], dtype=np.float32)
    found = statistics.window_sums(x, LOW, HIGH)
    assert found.count.tolist() == [2]
    assert found.total == pytest.approx([0.0, 0.0])  # 2 and 8 are -0.6 and 0.6 on the range 0..10
    assert found.square == pytest.approx([0.72, 0.0])
    normalisation = found.normalisation(LOW, HIGH)
    assert normalisation.mean == pytest.approx([5.0, 0.0])
    assert normalisation.scale == pytest.approx([3.0, 0.001])  # a constant channel keeps a thousandth of its range


def test_the_schema_alone():
    found = statistics.schema_normalisation(LOW, HIGH)
    assert found.mean.tolist() == [5.0, 0.0]
    assert found.scale.tolist() == [2.5, 0.5]


windows = arrays.arrays(
    np.float32, st.tuples(st.integers(0, 6), st.just(3), st.just(2)), elements=st.floats(-20, 20, width=32)
)


@settings(max_examples=60, deadline=None)
@given(windows, windows)
def test_sums_of_two_sites_are_those_of_the_pooled_data(first, second):
    merged = statistics.window_sums(first, LOW, HIGH) + statistics.window_sums(second, LOW, HIGH)
    pooled = statistics.window_sums(np.concatenate([first, second]), LOW, HIGH)
    np.testing.assert_allclose(merged.total, pooled.total, atol=1e-12)
    np.testing.assert_allclose(merged.square, pooled.square, atol=1e-12)
    assert merged.count == pooled.count


@settings(max_examples=60, deadline=None)
@given(windows)
def test_one_window_moves_the_sums_by_no_more_than_the_sensitivity(x):
    for window in x:
        found = statistics.window_sums(window[None], LOW, HIGH)
        moved = np.concatenate([found.count, found.total, found.square])
        assert np.linalg.norm(moved) <= statistics.sensitivity(2) + 1e-12


@settings(max_examples=30, deadline=None)
@given(st.integers(-50, 50), arrays.arrays(np.float64, 4, elements=st.floats(-1e3, 1e3)))
def test_noise_cannot_make_a_normalisation_leave_the_public_range(count, noise):
    found = statistics.Sums(count=np.array([float(count)]), total=noise[:2], square=noise[2:])
    normalisation = found.normalisation(LOW, HIGH)
    assert np.isfinite(normalisation.mean).all()
    assert (normalisation.mean >= LOW).all()
    assert (normalisation.mean <= HIGH).all()
    assert (normalisation.scale > 0).all()
    assert (normalisation.scale <= (HIGH - LOW) / 2 * 1.000001).all()


def test_a_scale_that_noise_may_have_eaten_is_not_believed():
    """Second moment 0.01 and noise of 5 on 1000 windows: a variance below 2 · 0.005 is raised to it."""
    found = statistics.Sums(count=np.array([1000.0]), total=np.zeros(2), square=np.array([-3.0, 250.0]))
    normalisation = found.normalisation(LOW, HIGH, noise=5.0)
    assert normalisation.scale == pytest.approx([5.0 * 0.1, 0.5])


def test_normalise_scales_inputs_and_regression_labels_only():
    base = Windows(
        x=np.array([[[5, 1]]], dtype=np.float32),
        y=np.array([[50]], dtype=np.float32),
        entity=np.zeros(1, dtype=np.int64),
        entities=("m",),
        time=np.zeros(1),
    )
    found = loading.normalise(base, np.array([3.0, 1.0]), np.array([2.0, 1.0]), label_scale=100)
    assert found.x.tolist() == [[[1, 0]]]
    assert found.x.dtype == np.float32
    assert found.y.tolist() == [[0.5]]
