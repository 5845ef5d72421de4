"""Rolling features of windows that can be worked out by hand, and the public bounds they never leave."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedsite.telemetry import features
from fedsite.telemetry.task import read_task


def _task(kinds, length=4, low=-10.0, high=10.0, seconds=0.1):
    return read_task(
        {
            "name": "toy",
            "data": {"file": "toy.csv"},
            "channels": [{"name": "a", "minimum": low, "maximum": high}],
            "rate": {"seconds": seconds},
            "window": {"length": length},
            "features": kinds,
            "label": {"kind": "none"},
            "split": {"kind": "none"},
            "model": {"name": "mlp"},
            "loss": "mse",
            "metric": {"name": "rmse", "better": "lower"},
        }
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mean", 3.0),
        ("std", np.sqrt(3.5)),
        ("min", 1.0),
        ("max", 6.0),
        ("rms", np.sqrt(12.5)),
        ("range", 5.0),
        ("last", 6.0),
        ("rate", 5 / 3),
        ("slope", (-1.5 * 1 - 0.5 * 2 + 0.5 * 3 + 1.5 * 6) / 5),
    ],
)
def test_each_kind(kind, expected):
    x = np.array([[[1], [2], [3], [6]]], dtype=np.float32)
    found = features.derive(x, _task([{"kind": kind}]))
    assert found.shape == (1, 1, 1)
    assert found[0, 0, 0] == pytest.approx(expected, rel=1e-6)


def test_lags_and_their_names():
    task = _task([{"kind": "lag", "steps": [1, 3]}])
    assert task.feature_names == ("a.lag1", "a.lag3")
    found = features.derive(np.array([[[1], [2], [3], [6]]], dtype=np.float32), task)
    assert found[0, 0].tolist() == [3, 1]


def test_a_sine_lies_in_its_band_with_half_its_amplitude_squared():
    time = np.arange(40) * 0.1
    x = (3 * np.sin(2 * np.pi * 1.0 * time) + 7)[None, :, None].astype(np.float32)
    task = _task([{"kind": "band", "bands": [[0, 0.5], [0.5, 2], [2, 5.1]]}], length=40)
    assert task.feature_names == ("a.band0-0.5", "a.band0.5-2", "a.band2-5.1")
    assert features.derive(x, task)[0, 0] == pytest.approx([0, 4.5, 0], abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 33), st.just(1)), elements=st.floats(-5, 5))
)
def test_bands_that_cover_everything_add_up_to_the_variance(x):
    found = sum(features.band_power(x, ((0.0, 0.1), (0.1, 1.0)), 1.0))
    np.testing.assert_allclose(found, x.var(axis=1), atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(["mean", "std", "min", "max", "rms", "slope", "range", "last", "rate"]),
    bounds=st.sampled_from([(-10.0, 10.0), (3.0, 4.0), (-7.0, -2.0)]),
    bits=st.lists(st.booleans(), min_size=2, max_size=24),
)
def test_no_window_within_the_channels_range_leaves_the_features_bounds(kind, bounds, bits):
    # Windows that jump between the two ends are the extreme ones.
    low, high = bounds
    x = np.where(bits, high, low)[None, :, None]
    task = _task([{"kind": kind}], length=len(bits), low=low, high=high)
    exact = features._columns(task.features[0], x, 0.1)[0][0, 0]
    lower, upper = task.feature_bounds[0]
    assert lower - 1e-9 <= exact <= upper + 1e-9


def test_the_steepest_window_reaches_the_slopes_bound():
    task = _task([{"kind": "slope"}], length=6, low=0, high=2)
    found = features.derive(np.array([[[0], [0], [0], [2], [2], [2]]], dtype=np.float32), task)
    assert found[0, 0, 0] == pytest.approx(task.feature_bounds[0][1])


def test_narrower_public_bounds_clip():
    task = _task([{"kind": "mean", "minimum": 0.0, "maximum": 2.0}])
    assert task.feature_bounds == ((0.0, 2.0),)
    assert features.derive(np.full((1, 4, 1), 5, dtype=np.float32), task)[0, 0, 0] == 2
