"""Gap and missing-value policies on tables of a few rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.telemetry import gaps
from fedsite.telemetry.schema import Channel
from fedsite.telemetry.task_document import Gap, Missing

NAN = float("nan")


def test_a_run_breaks_at_a_gap_an_entity_and_the_cut(toy_table):
    table = toy_table([0, 1, 2, 5, 6, 0, 1, 2], entity=[0, 0, 0, 0, 0, 1, 1, 1], held=[0, 0, 0, 0, 0, 0, 0, 1])
    assert gaps.runs(table, 1.0, 1).tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    assert gaps.runs(table, 1.0, 3).tolist() == [0, 0, 0, 0, 0, 1, 1, 2]
    assert gaps.runs(table, None, 1).tolist() == [0, 0, 0, 0, 0, 1, 1, 2]  # no clock, no gaps


def test_jitter_of_less_than_half_a_step_is_no_gap(toy_table):
    assert gaps.runs(toy_table([0.0, 1.4, 2.1, 3.7]), 1.0, 1).tolist() == [0, 0, 0, 1]


def test_hold_repeats_the_last_reading_and_marks_it(toy_table):
    filled = gaps.fill(toy_table([10, 11, 14, 15]), 1.0, Gap(longest=3, policy="hold"))
    assert filled.time.tolist() == [10, 11, 12, 13, 14, 15]
    assert filled.values[:, 0].tolist() == [0, 1, 1, 1, 2, 3]
    assert filled.real.tolist() == [True, True, False, False, True, True]
    assert np.isnan(filled.label[2:4]).all()
    assert filled.label[[0, 1, 4, 5]].tolist() == [0, 1, 2, 3]


def test_interpolate_draws_a_line(toy_table):
    filled = gaps.fill(toy_table([0, 4], a=[2, 6]), 1.0, Gap(longest=4, policy="interpolate"))
    assert filled.values[:, 0].tolist() == [2, 3, 4, 5, 6]


def test_a_longer_gap_is_left_open(toy_table):
    filled = gaps.fill(toy_table([0, 1, 5, 6]), 1.0, Gap(longest=3, policy="hold"))
    assert filled.time.tolist() == [0, 1, 5, 6]
    assert gaps.runs(filled, 1.0, 3).tolist() == [0, 0, 1, 1]


def test_two_readings_on_one_point_of_the_grid_leave_the_later(toy_table):
    filled = gaps.fill(toy_table([0.0, 0.9, 1.1, 2.0]), 1.0, Gap(longest=2, policy="hold"))
    assert filled.values[:, 0].tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("policy", "longest", "expected"),
    [
        ("drop", 9, [NAN, 1, NAN, NAN, 4, NAN]),
        ("hold", 1, [NAN, 1, 1, NAN, 4, 4]),
        ("hold", 2, [NAN, 1, 1, 1, 4, 4]),
        ("interpolate", 1, [NAN, 1, NAN, NAN, 4, NAN]),
        ("interpolate", 2, [NAN, 1, 2, 3, 4, NAN]),
        ("middle", 1, [5, 1, 5, 5, 4, 5]),
        ("minimum", 1, [0, 1, 0, 0, 4, 0]),
    ],
)
def test_missing_values_by_policy(policy, longest, expected):
    values = np.array([[NAN], [1], [NAN], [NAN], [4], [NAN]], dtype=np.float32)
    channel = Channel(name="a", minimum=0, maximum=10)
    found = gaps.complete(values, np.zeros(6, dtype=np.int64), [channel], Missing(policy=policy, longest=longest))
    np.testing.assert_array_equal(found[:, 0], np.array(expected, dtype=np.float32))


def test_a_channels_own_policy_wins():
    values = np.full((2, 2), NAN, dtype=np.float32)
    channels = [Channel(name="a", minimum=0, maximum=10, missing="middle"), Channel(name="b", minimum=0, maximum=1)]
    found = gaps.complete(values, np.zeros(2, dtype=np.int64), channels, Missing())
    assert found[:, 0].tolist() == [5, 5]
    assert np.isnan(found[:, 1]).all()


@pytest.mark.parametrize("policy", ["hold", "interpolate"])
def test_nothing_is_filled_across_a_break(policy):
    values = np.array([[1], [NAN], [NAN], [2]], dtype=np.float32)
    run = np.array([0, 0, 1, 1])
    found = gaps.complete(values, run, [Channel(name="a", minimum=0, maximum=10)], Missing(policy=policy, longest=9))
    assert np.isnan(found[2, 0])
    assert found[1, 0] == 1 if policy == "hold" else np.isnan(found[1, 0])


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30), st.integers(1, 6))
def test_filled_runs_are_on_the_grid_and_keep_every_reading(steps, longest):
    time = np.concatenate([[0], np.cumsum(steps)]).astype(np.float64)
    table = _table(time)
    filled = gaps.fill(table, 1.0, Gap(longest=longest, policy="hold"))
    run = gaps.runs(filled, 1.0, longest)
    inside = np.diff(filled.time)[np.diff(run) == 0]
    assert (inside == 1).all()
    assert filled.time[filled.real].tolist() == time.tolist()
    assert filled.values[filled.real, 0].tolist() == table.values[:, 0].tolist()


def _table(time):
    from fedsite.telemetry.table import Table

    count = len(time)
    return Table(
        values=np.arange(count, dtype=np.float32)[:, None],
        time=time,
        entity=np.zeros(count, dtype=np.int64),
        entities=("m",),
        label=np.zeros(count),
        held=np.zeros(count, dtype=bool),
        real=np.ones(count, dtype=bool),
        origin="toy",
    )
