"""Windows of toy tables, and the laws every window keeps."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsite.telemetry import splits, windows


def test_every_full_window_with_its_label_and_time(toy_table, toy_task):
    train, holdout = windows.cut(toy_table([0, 1, 2, 3, 4]), toy_task())
    assert train.x[:, :, 0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert train.y.tolist() == [[2], [3], [4]]
    assert train.y.dtype == np.float32
    assert train.x.dtype == np.float32
    assert train.time.tolist() == [2, 3, 4]
    assert len(holdout) == 0
    assert holdout.x.shape == (0, 3, 2)


def test_stride_counts_from_the_start_of_each_run(toy_table, toy_task):
    table = toy_table([0, 1, 2, 3, 9, 10, 11, 12])
    train, _ = windows.cut(table, toy_task(window={"length": 3, "stride": 2}))
    assert train.x[:, 0, 0].tolist() == [0, 4]


def test_no_window_spans_a_gap_or_two_entities(toy_table, toy_task):
    table = toy_table([0, 1, 2, 4, 5, 6, 7, 8], entity=[0, 0, 0, 0, 0, 0, 1, 1])
    train, _ = windows.cut(table, toy_task())
    assert train.x[:, :, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_held_readings_fill_a_window_but_do_not_end_one(toy_table, toy_task):
    task = toy_task(window={"length": 3, "gap": {"longest": 2, "policy": "hold"}})
    train, _ = windows.cut(toy_table([0, 1, 3, 4]), task)
    assert train.time.tolist() == [3, 4]
    assert train.x[:, :, 0].tolist() == [[1, 1, 2], [1, 2, 3]]
    assert train.y.tolist() == [[2], [3]]


def test_a_window_with_a_missing_value_is_left_out(toy_table, toy_task):
    nan = float("nan")
    train, _ = windows.cut(toy_table([0, 1, 2, 3, 4, 5], a=[0, 1, nan, 3, 4, 5]), toy_task())
    assert train.x[:, :, 0].tolist() == [[3, 4, 5]]


def test_an_unlabelled_window_is_left_out_of_what_is_supervised(toy_table, toy_task):
    nan = float("nan")
    table = toy_table([0, 1, 2, 3], label=[nan, nan, nan, 7])
    train, _ = windows.cut(table, toy_task())
    assert train.y.tolist() == [[7]]
    task = toy_task(label={"kind": "self", "column": "y"}, loss="reconstruction", metric={"name": "auroc"})
    train, _ = windows.cut(table, task)
    assert train.y.tolist() == [0, 1]


def test_a_short_run_is_padded_with_its_first_row(toy_table, toy_task):
    table = toy_table([5, 6, 0, 1, 2, 3], entity=[0, 0, 1, 1, 1, 1])
    train, _ = windows.cut(table, toy_task(window={"length": 3, "pad": "edge"}))
    assert train.x[:, :, 0].tolist() == [[0, 0, 1], [2, 3, 4], [3, 4, 5]]
    assert train.time.tolist() == [6, 2, 3]
    assert train.entity.tolist() == [0, 1, 1]


def test_the_last_window_of_each_holdout_entity(toy_table, toy_task):
    table = toy_table([0, 1, 2, 3, 0, 1, 2, 3], entity=[0] * 4 + [1] * 4, held=[1] * 8)
    _, holdout = windows.cut(table, toy_task(split={"kind": "none", "holdout_windows": "last"}))
    assert holdout.y.tolist() == [[3], [7]]


def test_a_fold_makes_an_image_of_a_row(toy_table, toy_task):
    channels = [{"name": "p", "count": 6, "minimum": 0, "maximum": 9}]
    task = toy_task(channels=channels, window={"length": 1, "fold": 2}, label={"kind": "none"})
    table = toy_table([0])
    table = replace(table, values=np.arange(6, dtype=np.float32)[None, :])
    train, _ = windows.cut(table, task)
    assert train.x.tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert task.input_shape == (2, 3)
    assert task.feature_names == ("column0", "column1", "column2")
    assert task.feature_bounds == ((0, 9),) * 3


@pytest.mark.parametrize(
    ("loss", "extra", "dtype"),
    [
        ("mse", {}, np.float32),
        ("binary_cross_entropy", {}, np.int64),
        ("cross_entropy", {"classes": list(range(9))}, np.int64),
    ],
)
def test_targets_have_the_type_of_their_loss(toy_table, toy_task, loss, extra, dtype):
    task = toy_task(loss=loss, label={"kind": "column", "column": "y", **extra})
    train, _ = windows.cut(toy_table([0, 1, 2, 3]), task)
    assert train.y.dtype == dtype
    assert len(train.y.shape) == (2 if loss == "mse" else 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    steps=st.lists(st.integers(1, 4), min_size=4, max_size=60),
    length=st.integers(1, 5),
    stride=st.integers(1, 3),
    longest=st.integers(1, 3),
    policy=st.sampled_from(["drop", "hold", "interpolate"]),
    rows=st.integers(1, 40),
    ahead=st.integers(1, 4),
)
def test_windows_never_cross_gaps_and_parts_share_no_reading(
    toy_table, toy_task, steps, length, stride, longest, policy, rows, ahead
):
    time = np.concatenate([[0], np.cumsum(steps)])
    table = toy_table(time, a=time)  # channel a is the time of the reading
    gap = {"longest": longest, "policy": policy}
    task = toy_task(
        channels=[{"name": "a", "minimum": 0, "maximum": 1000}, {"name": "b", "minimum": -1, "maximum": 1}],
        window={"length": length, "stride": stride, "gap": gap},
        label={"kind": "horizon", "column": "y", "ahead": ahead},
        split={"kind": "time", "rows": rows},
    )
    train, holdout = windows.cut(splits.assign(table, task), task)
    for part in (train, holdout):
        if length > 1 and len(part):
            assert np.diff(part.x[:, :, 0], axis=1).max() <= longest
    if len(train) and len(holdout):
        # The latest thing a training window knows, its label included, is before the first thing a holdout window sees.
        label_time = time[train.y[:, 0].astype(int)]
        assert max(train.time.max(), label_time.max()) < holdout.x[:, :, 0].min()
        assert (label_time - train.time == ahead).all()
