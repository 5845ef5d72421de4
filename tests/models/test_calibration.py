"""Ranges from counts: bins by hand, one count per unit and row, units kept apart, noise that cannot stretch a range."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.models import calibration, runtime
from fedsite.protocol.errors import DataError, IntegrityError

NAMES = ["y"]


def tapped(operation="Mul", constant=2.0, **attributes):
    """y = x * 2, tapped as calibration.with_taps would."""
    value = onnx.helper.make_tensor_value_info
    shape = ["n", 2, 1]
    inputs = ["x", "c"] if constant is not None else ["x"]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node(operation, inputs, ["y"], **attributes),
            onnx.helper.make_node("Identity", ["y"], ["tap_y"]),
        ],
        "g",
        [value("x", onnx.TensorProto.FLOAT, shape)],
        [value("y", onnx.TensorProto.FLOAT, None), value("tap_y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.float32(constant), "c")] if constant is not None else [],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def windows(*rows):
    return np.array(rows, np.float32)[:, :, None]


def test_bins_by_hand():
    # Window maxima of y = 2x: 4 and 1; of -y: 2 and -0.5 (nothing below zero: bin 0).
    found = calibration.counts(tapped(), NAMES, windows([2.0, -1.0], [0.5, 0.25]))
    edge = {float(value): index for index, value in enumerate(calibration.EDGES)}
    assert found["positive"].shape == found["negative"].shape == (1, calibration.BINS)
    assert np.flatnonzero(found["positive"][0]).tolist() == [edge[1.0], edge[4.0]]
    assert np.flatnonzero(found["negative"][0]).tolist() == [0, edge[2.0]]
    assert calibration.ranges(found, NAMES) == {"y": (-2.0, 4.0)}


def test_entity_counts_once_and_batches_give_the_same_range():
    x = windows([2.0, -1.0], [0.5, 0.25], [8.0, 0.0])
    entity = calibration.counts(tapped(), NAMES, x, unit=np.array([7, 7, 9]))
    assert entity["positive"].sum() == entity["negative"].sum() == 2
    together = calibration.counts(tapped(), NAMES, x, isolated=False)
    assert together["positive"].sum() == 3
    np.testing.assert_array_equal(together["positive"], calibration.counts(tapped(), NAMES, x)["positive"])
    assert calibration.ranges(entity, NAMES) == calibration.ranges(together, NAMES) == {"y": (-2.0, 16.0)}


@pytest.fixture
def picky(monkeypatch):
    """A runtime that fails on windows whose first number is 2 or more, and only on those."""
    run = runtime.Session.run

    def fails(self, outputs, x):
        if (x[:, 0] >= 2).any():
            raise RuntimeError("index out of range")
        return run(self, outputs, x)

    monkeypatch.setattr(runtime.Session, "run", fails)


def test_a_graph_that_fails_on_some_data_says_so_in_that_units_counts_alone(picky):
    ordinary, odd = windows([0.0, 1.0], [1.0, 1.0]), windows([5.0, 0.0])
    without = calibration.counts(tapped(), NAMES, ordinary, scores=True)
    found = calibration.counts(tapped(), NAMES, np.concatenate([ordinary, odd]), scores=True)
    for name, rows in found.items():
        change = rows - without[name]
        assert (change.sum(), np.abs(change).sum()) == (1.0, 1.0), name
    with pytest.raises(IntegrityError, match="does not run"):
        calibration.counts(tapped(), NAMES, odd, isolated=False)


@pytest.mark.parametrize("graph", [tapped(), tapped("ReduceMean", None, keepdims=1)])
def test_one_unit_changes_each_row_by_one_count_even_if_the_graph_mixes_windows(graph):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 2, 1)).astype(np.float32)
    unit = np.array([0, 0, 1, 1, 1, 2])
    for owner in (None, unit):
        left = np.arange(6) != 5
        both = [
            calibration.counts(graph, NAMES, x[rows], unit=None if owner is None else owner[rows])
            for rows in (np.ones(6, bool), left)
        ]
        for key in both[0]:
            difference = both[0][key] - both[1][key]
            assert difference.sum() == 1
            assert np.abs(difference).sum() == 1


def test_score_histogram_counts_each_units_largest_score():
    # The "reconstruction" 2x is off by x: the score is the mean square of x.
    x = windows([1.0, 1.0], [2.0, 2.0], [3.0, 3.0])
    per_window = calibration.counts(tapped(), NAMES, x, scores=True)
    assert per_window["score"].sum() == 3
    for isolated in (True, False):
        per_entity = calibration.counts(tapped(), NAMES, x, unit=np.array([1, 1, 4]), scores=True, isolated=isolated)
        bins = np.searchsorted(calibration.EDGES, [4.0, 9.0])
        assert np.flatnonzero(per_entity["score"]).tolist() == bins.tolist()
    assert calibration.sensitivity(1, scores=True) ** 2 == pytest.approx(3)
    assert calibration.sensitivity(5, scores=False) ** 2 == pytest.approx(10)


@given(st.lists(st.floats(1e-3, 4e3), min_size=1, max_size=30), st.lists(st.floats(1e-3, 4e3), min_size=1, max_size=30))
def test_ranges_of_merged_counts_hold_all_but_rare_spikes_and_little_more(first, second):
    def row(values):
        found = np.bincount(np.searchsorted(calibration.EDGES, values), minlength=calibration.BINS)
        return {"positive": found[None], "negative": found[None]}

    total = {key: row(first)[key] + row(second)[key] for key in ("positive", "negative")}
    low, high = calibration.ranges(total, NAMES)["y"]
    values = np.sort([*first, *second])
    largest, middle = values[-1], values[(len(values) - 1) // 2]
    assert min(largest, 8 * middle) <= high <= min(largest, 8 * values[len(values) // 2]) * 2**0.25 * (1 + 1e-9)
    assert low == -high


def test_a_rare_spike_does_not_take_the_resolution():
    x = np.full((201, 2, 1), 0.5, np.float32)
    x[7] = 500.0
    found = calibration.ranges(calibration.counts(tapped(), NAMES, x, isolated=False), NAMES)
    assert found == {"y": (0.0, 8.0)}


def test_noise_does_not_stretch_a_range_and_leaves_out_what_it_hides():
    rng = np.random.default_rng(0)
    noise, wide, lost = 20.0, 0, 0
    for _ in range(40):
        total = {}
        for key in ("positive", "negative"):
            total[key] = rng.normal(0, noise, (2, calibration.BINS))
            total[key][0, 40:44] += 500.0
            total[key][1, 40] += 10.0
        found = calibration.ranges(total, ["strong", "hidden"], noise=noise)
        wide += found["strong"][1] > 2 * calibration.EDGES[43]
        assert found["strong"][1] >= calibration.EDGES[43]
        lost += "hidden" not in found
    assert wide <= 4
    assert lost >= 38


def test_widened_stretches_to_four_times_at_most():
    found = calibration.widened({"a": (-1.0, 1.0), "b": (0.0, 2.0)}, {"a": (-3.0, 50.0), "b": (-9.0, 1.0)})
    assert found == {"a": (-3.0, 4.0), "b": (0.0, 2.0)}


def test_threshold_is_the_quantile_times_the_factor():
    rng = np.random.default_rng(0)
    score = np.exp(rng.normal(size=50_000))
    row = np.bincount(np.searchsorted(calibration.EDGES, score), minlength=calibration.BINS).astype(float)
    exact = 1.5 * np.quantile(score, 0.99)
    assert calibration.threshold(row) == pytest.approx(exact, rel=0.03)
    noisy = calibration.threshold(row + rng.normal(0, 30, calibration.BINS), noise=30)
    assert exact / 2.5 < noisy < exact * 1.3
    assert calibration.threshold(np.zeros(calibration.BINS)) is None
    assert calibration.threshold(rng.normal(0, 30, calibration.BINS), noise=30) is None


def test_synthetic_inputs_are_public_and_inside_the_bounds():
    low, high = np.array([-1.0, 0.0, -5.0]), np.array([1.0, 0.5, 5.0])
    x = calibration.synthetic_inputs(low, high, 7, count=20)
    assert x.shape == (20, 7, 3)
    assert x.dtype == np.float32
    assert (x >= low).all()
    assert (x <= high).all()
    np.testing.assert_array_equal(x, calibration.synthetic_inputs(low, high, 7, count=20))


def test_estimated_ranges_reach_twice_as_far_as_synthetic_windows():
    # y = 2x reaches from -2 to 8 on these windows.
    found = calibration.estimate(tapped(), NAMES, windows([4.0, -1.0], [0.5, 0.25]))
    assert found == {"y": (-4.0, 16.0)}


def test_what_does_not_fit_is_refused():
    with pytest.raises(IntegrityError, match="lacks tensor nobody"):
        calibration.counts(tapped(), ["nobody"], windows([1.0, 2.0]))
    with pytest.raises(IntegrityError, match="not an ONNX model"):
        calibration.counts(b"nothing", NAMES, windows([1.0, 2.0]))
    with pytest.raises(DataError, match="calibration counts positive"):
        calibration.ranges({"positive": np.zeros((2, 3)), "negative": np.zeros((2, 3))}, NAMES)
