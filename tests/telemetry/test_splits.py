"""Splits by time and by entity: who is where, and what the guard leaves out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.telemetry import splits
from fedsite.telemetry.errors import TelemetryError


def _parts(table):
    return table.time[~table.held].tolist(), table.time[table.held].tolist()


def test_rows_after_each_entitys_start(toy_table, toy_task):
    task = toy_task(split={"kind": "time", "rows": 2, "guard": 0})
    table = splits.assign(toy_table([0, 1, 2, 10, 11, 12, 13], entity=[0, 0, 0, 1, 1, 1, 1]), task)
    assert _parts(table) == ([0, 1, 10, 11], [2, 12, 13])


def test_the_last_fraction_with_the_default_guard_of_a_window(toy_table, toy_task):
    task = toy_task(split={"kind": "time", "fraction": 0.3})
    assert _parts(splits.assign(toy_table(range(10)), task)) == ([0, 1, 2, 3], [7, 8, 9])


def test_the_guard_also_covers_the_label_ahead(toy_table, toy_task):
    task = toy_task(split={"kind": "time", "fraction": 0.3}, label={"kind": "horizon", "column": "y", "ahead": 2})
    assert _parts(splits.assign(toy_table(range(10)), task)) == ([0, 1], [7, 8, 9])


def test_a_date(toy_table, toy_task):
    day = 86400.0
    task = toy_task(split={"kind": "time", "at": "1970-01-03", "guard": 0})
    assert _parts(splits.assign(toy_table([0, day, 2 * day, 3 * day]), task)) == ([0, day], [2 * day, 3 * day])


def test_nothing_is_guarded_where_nothing_is_held_out(toy_table, toy_task):
    task = toy_task(split={"kind": "time", "rows": 50})
    assert _parts(splits.assign(toy_table(range(4)), task)) == ([0, 1, 2, 3], [])


def test_whole_entities(toy_table, toy_task):
    task = toy_task(split={"kind": "entity", "fraction": 0.5})
    table = splits.assign(toy_table(range(8), entity=[0, 0, 1, 1, 2, 2, 3, 3]), task)
    held = {entity: set(table.held[table.entity == entity].tolist()) for entity in range(4)}
    assert all(len(parts) == 1 for parts in held.values())
    # SHA-256 of m0 begins with e4, of m1 with ca, of m2 with 29, of m3 with 15: the last two are below a half.
    assert held == {0: {False}, 1: {False}, 2: {True}, 3: {True}}


def test_one_entity_cannot_be_split(toy_table, toy_task):
    with pytest.raises(TelemetryError, match="the 1 entities are all"):
        splits.assign(toy_table(range(4)), toy_task(split={"kind": "entity"}))


@given(st.sets(st.text("abcdef0123456789", min_size=1, max_size=6), min_size=8, max_size=30), st.floats(0.3, 0.7))
def test_a_new_entity_moves_no_other(names, fraction):
    before = tuple(sorted(names))
    after = (*before, "a new one")
    try:
        held = {before[index] for index in splits.holdout_entities(before, fraction, "toy")}
    except TelemetryError:
        return
    grown = {after[index] for index in splits.holdout_entities(after, fraction, "toy")}
    assert held ^ grown <= {"a new one"}


def test_an_events_horizon_keeps_training_away_from_the_cut(toy_table, toy_task):
    events = {"file": "events.csv", "time": "time", "within": "y", "horizon": 2.5}
    task = toy_task(split={"kind": "time", "rows": 6, "guard": 0}, events=events)
    train, held = _parts(splits.assign(toy_table(range(9)), task))
    assert train == [0, 1, 2, 3]
    assert held == [6, 7, 8]
    assert np.all(np.array(train) + 2.5 < 6)
