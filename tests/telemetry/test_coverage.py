"""What windows cover: exact on toy numbers, and never less than what any of them was cut from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.telemetry import coverage as covered
from fedsite.telemetry.coverage import EVER, SITE, Coverage, coverage, entity_key
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.task import Task

T0 = 1_700_000_000.0


def _windows(time: list[float], entity: list[int], entities: tuple[str, ...]) -> Windows:
    count = len(time)
    return Windows(
        x=np.zeros((count, 3, 2), np.float32),
        y=np.zeros((count, 1), np.float32),
        entity=np.array(entity, np.int64),
        entities=entities,
        time=np.array(time, np.float64),
    )


def _data(train: Windows, holdout: Windows | None = None) -> SiteData:
    bound = np.zeros(2, np.float32)
    empty = _windows([], [], train.entities)
    return SiteData(
        train=train, holdout=holdout or empty, features=("a", "b"), minimum=bound, maximum=bound + 1, overlap=3
    )


def test_each_entity_from_its_first_reading_to_its_last(toy_task: Callable[..., Task]) -> None:
    train = _windows([T0 + 3, T0 + 9, T0 + 5], [0, 0, 1], ("m1", "m2", "m3"))
    holdout = _windows([T0 + 20], [1], ("m1", "m2", "m3"))
    found = coverage(toy_task(), _data(train, holdout))
    # A window of 3 readings at most 1.5 s apart reaches 3 s back; m3 has no window.
    entities = {"m1": (T0, T0 + 9), "m2": (T0 + 2, T0 + 20)}
    assert found == Coverage(clock="utc time", entities=entities, columns=("machine",))


def test_a_label_ahead_and_longer_gaps_reach_further(toy_task: Callable[..., Task]) -> None:
    task = toy_task(window={"gap": {"longest": 2}}, label={"kind": "horizon", "ahead": 4}, rate={"unit": "s"})
    found = coverage(task, _data(_windows([100.0], [0], ("m1",))))
    assert (found.clock, found.entities) == ("s time", {"m1": (100 - 2 * 2.5, 100 + 4 * 2.5)})


def test_joined_facts_reach_as_far_as_they_are_looked_for(toy_task: Callable[..., Task]) -> None:
    events = [{"file": "e.csv", "time": "t", "since": "a", "within": "y", "horizon": 50.0}]
    found = coverage(toy_task(events=events), _data(_windows([T0], [0], ("m1",))))
    assert found.entities == {"m1": (T0 - 3 - 10, T0 + 50)}
    context = [{"file": "c.csv", "columns": ["b"]}]
    found = coverage(toy_task(context=context), _data(_windows([T0], [0], ("m1",))))
    assert found.entities == {"m1": (-math.inf, T0)}


def test_filled_values_borrow_from_their_neighbours(toy_task: Callable[..., Task]) -> None:
    task = toy_task(window={"missing": {"policy": "interpolate", "longest": 2}})
    assert coverage(task, _data(_windows([T0], [0], ("m1",)))).entities == {"m1": (T0 - 6, T0 + 3)}


def test_without_an_entity_the_site_is_one_whatever_it_is_called(toy_task: Callable[..., Task]) -> None:
    task = toy_task(data={"entity": None})
    one = coverage(task, _data(_windows([T0], [0], ("site-1",))))
    assert one == coverage(task, _data(_windows([T0], [0], ("renamed",))))
    assert one.entities == {SITE: (T0 - 3, T0)}
    assert one.overlaps(coverage(toy_task(), _data(_windows([T0 - 2], [0], ("m1",)))))
    assert not one.overlaps(coverage(toy_task(), _data(_windows([T0 - 4], [0], ("m1",)))))


def test_without_time_an_entity_is_covered_for_ever(toy_task: Callable[..., Task]) -> None:
    document = {"data": {"time": None}, "rate": {"seconds": None, "unit": "row"}}
    found = coverage(toy_task(**document), _data(_windows([0.0, 1.0], [0, 1], ("m1", "m2"))))
    assert (found.clock, found.entities) == ("none", {"m1": EVER, "m2": EVER})
    assert found.overlaps(coverage(toy_task(), _data(_windows([T0], [0], ("M1 ",)))))
    assert not found.overlaps(coverage(toy_task(), _data(_windows([T0], [0], ("m3",)))))


def test_times_since_a_start_of_their_own_are_not_compared_with_the_clock(toy_task: Callable[..., Task]) -> None:
    task = toy_task(rate={"unit": "s"})
    own, utc = (coverage(task, _data(_windows([at], [0], ("m1",)))) for at in (30.0, T0))
    assert (own.clock, utc.clock) == ("s time", "utc time")
    assert own.overlaps(utc)


@pytest.mark.parametrize("entity", ["serial", ["machine", "serial"]])
def test_names_out_of_another_column_may_be_the_same_entities(toy_task: Callable[..., Task], entity: Any) -> None:
    """The centre writes the task: the same records, named by another column, must not look like new ones."""
    one = coverage(toy_task(), _data(_windows([T0], [0], ("m1",))))
    other = coverage(toy_task(data={"entity": entity}), _data(_windows([T0 + 900], [0], ("s-17",))))
    assert one.overlaps(other)
    assert other.overlaps(one)


def test_times_out_of_another_column_are_on_another_clock(toy_task: Callable[..., Task]) -> None:
    one = coverage(toy_task(), _data(_windows([T0], [0], ("m1",))))
    other = coverage(toy_task(data={"time": "stored"}), _data(_windows([T0 + 1e6], [0], ("m1",))))
    assert one.overlaps(other)
    assert not one.overlaps(coverage(toy_task(), _data(_windows([T0 + 1e6], [0], ("m1",)))))


def test_no_windows_cover_nothing(toy_task: Callable[..., Task]) -> None:
    found = coverage(toy_task(), _data(_windows([], [], ("m1",))))
    assert found.entities == {}
    assert not found.overlaps(found)


def test_too_many_entities_are_covered_as_the_site(
    toy_task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(covered, "MOST", 2)
    found = coverage(toy_task(), _data(_windows([T0, T0 + 5, T0 + 9], [0, 1, 2], ("a", "b", "c"))))
    assert found.entities == {SITE: (T0 - 3, T0 + 9)}


@pytest.mark.parametrize(
    ("one", "other"), [("7", "007"), ("7.0", "7"), (" Pump-1", "pump-1"), ("train/1.0", "Train/1"), ("７", "7")]
)
def test_one_entity_written_in_several_ways(one: str, other: str) -> None:
    assert entity_key(one) == entity_key(other)


@pytest.mark.parametrize("name", ["nan", "inf", "1e400", "", "1/2", "a/b/c", "-", "1_0"])
def test_names_that_only_look_like_numbers(name: str) -> None:
    assert entity_key(entity_key(name)) == entity_key(name)


def test_plain_and_back() -> None:
    entities = {"a": (1.0, 2.5), "b": EVER, SITE: (-math.inf, 3.0)}
    found = Coverage(clock="utc", entities=entities, columns=("plant", "unit"))
    value: Any = covered.plain(found)
    assert value["entities"]["b"] == [None, None]
    assert covered.from_plain(value) == found


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1e9)), min_size=1, max_size=40), st.integers(0, 40))
def test_every_window_lies_in_its_entitys_interval(rows: list[tuple[int, float]], cut: int) -> None:
    from fedsite.telemetry.task import read_task
    from tests.telemetry.conftest import DOCUMENT

    names = ("a", "b", "c", "d", "e")
    parts = [_windows([t for _, t in part], [e for e, _ in part], names) for part in (rows[:cut], rows[cut:])]
    found = coverage(read_task(DOCUMENT), _data(*parts))
    assert set(found.entities) == {names[entity] for entity, _ in rows}
    for entity, time in rows:
        first, last = found.entities[names[entity]]
        assert first <= time <= last
