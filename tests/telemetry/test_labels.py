"""Labels at, within and after a window."""

import numpy as np

from fedsite.telemetry import labels
from fedsite.telemetry.task_learning import Label

NAN = float("nan")


def _of(table, label, length=1, step=1.0, run=None):
    run = np.zeros(len(table), dtype=np.int64) if run is None else np.asarray(run)
    starts = np.arange(len(table) - length + 1)
    found = labels.of_windows(table, run, starts, starts + length - 1, label, step)
    return [None if np.isnan(value) else value for value in found]


def test_the_last_rows_value_capped(toy_table):
    label = Label(kind="column", column="y", maximum=2)
    assert _of(toy_table([0, 1, 2, 3]), label, length=2) == [1, 2, 2]


def test_any_row_in_the_window(toy_table):
    table = toy_table(range(5), label=[0, 1, 0, 0, NAN])
    assert _of(table, Label(kind="column", column="y", at="any"), length=2) == [1, 1, 0, None]


def test_a_value_ahead_is_exactly_that_far_ahead(toy_table):
    label = Label(kind="horizon", column="y", ahead=2)
    assert _of(toy_table([0, 1, 2, 3]), label) == [2, 3, None, None]
    # The reading two rows on came a step late: it is not the value two steps ahead.
    assert _of(toy_table([0, 1, 3, 4]), label) == [None, None, None, None]
    assert _of(toy_table([0, 1, 3, 4]), label, step=None) == [2, 3, None, None]


def test_a_value_ahead_stays_in_its_run(toy_table):
    label = Label(kind="horizon", column="y", ahead=1)
    assert _of(toy_table([0, 1, 2, 3]), label, run=[0, 0, 1, 1]) == [1, None, 3, None]


def test_an_event_ahead_counts_from_after_the_window(toy_table):
    table = toy_table(range(6), label=[1, 0, 0, 1, 0, 0])
    label = Label(kind="horizon", column="y", ahead=2, reduce="any")
    # The event in row 0 is no warning of itself; rows 4 and 5 do not see two rows ahead, and no event either.
    assert _of(table, label) == [0, 1, 1, 0, None, None]


def test_an_event_seen_counts_where_the_record_ends_early(toy_table):
    label = Label(kind="horizon", column="y", ahead=3, reduce="any")
    assert _of(toy_table(range(3), label=[0, 0, 1]), label) == [1, 1, None]
