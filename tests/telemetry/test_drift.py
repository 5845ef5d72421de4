"""Drift: numbers that can be checked on paper, shifts that are found, and chance that is not taken for one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsite.telemetry import drift
from fedsite.telemetry.contract import Finding, Reference, inspect
from fedsite.telemetry.drift import BINS, Summary
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.sources_survey import Survey
from fedsite.telemetry.task import Task, load_task

T0 = 1_700_000_000.0
LABEL = {"kind": "column", "column": "y", "classes": ["good", "bad"]}


def _survey(a: Any, *, start: float = T0, b: Any = None) -> Survey:
    values = np.asarray(a, np.float64)
    other = np.zeros(len(values)) if b is None else np.asarray(b, np.float64)
    return Survey(
        origin="toy.csv",
        rows=len(values),
        values={"a": values, "b": other},
        time=start + np.arange(len(values)),
        entity=np.zeros(len(values), np.int64),
        entities=("m1",),
    )


def _judged(task: Task, before: Survey, now: Survey) -> list[Finding]:
    reference = drift.summarise(task, before)
    return drift.drift(task, reference, drift.compared(task, now, reference), since="then")


def _normal(seed: int, mean: float, count: int = 3000) -> NDArray[np.float64]:
    return np.clip(np.random.default_rng(seed).normal(mean, 1.0, count), 0, 10)


def test_the_index_is_the_one_of_the_books() -> None:
    before, now = np.array([500, 300, 200]), np.array([200, 300, 500])
    index, chance = drift.stability(before, now)
    assert index == pytest.approx(2 * (0.5 - 0.2) * math.log(0.5 / 0.2), rel=0.01)
    # χ² with 2 degrees of freedom: -2 ln 0.001 = 13.8, over 500.
    assert chance == pytest.approx(13.8 / 500, rel=0.03)


@pytest.mark.parametrize(("before", "now"), [([0, 0], [3, 4]), ([3, 4], [0, 0]), ([5, 0], [9, 0]), ([], [])])
def test_what_cannot_be_compared_has_not_shifted(before: list[int], now: list[int]) -> None:
    assert drift.stability(np.array(before, np.int64), np.array(now, np.int64)) == (0.0, 0.0)


def test_a_shift_is_found_in_its_channel_and_told_in_its_units(toy_task: Callable[..., Task]) -> None:
    (found,) = _judged(toy_task(), _survey(_normal(1, 4.0)), _survey(_normal(2, 5.5)))
    assert (found.code, found.channel, found.count, found.severity) == ("drift", "a", 3000, "warning")
    then, now = (float(number) for number in re.findall(r"mean ([\d.]+) to ([\d.]+) degC", found.text)[0])
    assert (then, now) == (pytest.approx(4.0, abs=0.1), pytest.approx(5.5, abs=0.1))
    assert "fedsite data check toy --accept" in found.remedy


def test_the_same_again_is_no_shift(toy_task: Callable[..., Task]) -> None:
    for seed in range(5):
        assert _judged(toy_task(), _survey(_normal(seed, 4.0)), _survey(_normal(seed + 50, 4.0))) == []


def test_a_few_readings_prove_nothing(toy_task: Callable[..., Task]) -> None:
    shifts = [_judged(toy_task(), _survey(_normal(s, 4.0, 20)), _survey(_normal(s + 99, 4.0, 20))) for s in range(20)]
    assert shifts == [[]] * 20


@pytest.mark.parametrize(("before", "now"), [([8.0], [2.0]), ([2.0], [8.0]), ([1.0, 8.0], [1.0, 4.0])])
def test_values_that_were_never_seen_are_a_shift(
    toy_task: Callable[..., Task], before: list[float], now: list[float]
) -> None:
    found = _judged(toy_task(), _survey(np.tile(before, 500)), _survey(np.tile(now, 500)))
    assert [finding.channel for finding in found] == ["a"]


def test_values_that_go_missing_are_a_shift(toy_task: Callable[..., Task]) -> None:
    lost = _normal(2, 4.0)
    lost[::3] = np.nan
    (found,) = _judged(toy_task(), _survey(_normal(1, 4.0)), _survey(lost))
    assert "missing 0% to 33%" in found.text


def test_what_is_new_is_judged_by_itself(toy_task: Callable[..., Task]) -> None:
    before, after = _normal(1, 4.0, 50_000), _normal(2, 6.0, 1000)
    grown = np.concatenate([before, after])
    (found,) = _judged(toy_task(), _survey(before), _survey(grown))
    assert found.count == 1000
    # Without a clock nothing says what is new: all of it is held against all of it, and little of it is new.
    counts = toy_task(rate={"seconds": None, "unit": "cycle"})
    assert _judged(counts, _survey(before, start=0), _survey(grown, start=0)) == []


def test_another_unit_or_range_is_not_compared(toy_task: Callable[..., Task]) -> None:
    task = toy_task()
    other = toy_task(channels=[{"name": "a", "unit": "K", "minimum": 0, "maximum": 10}])
    reference, present = drift.summarise(task, _survey(_normal(1, 4.0))), drift.summarise(other, _survey(_normal(2, 8)))
    assert drift.common(reference, present) == []
    assert drift.drift(other, reference, present, since="then") == []


def test_labels_shift_too(toy_task: Callable[..., Task]) -> None:
    task = toy_task(label=LABEL, loss="cross_entropy", metric={"name": "accuracy", "better": "higher"})
    then = Summary(rows=1, until=None, channels={}, labels={"good": 900, "bad": 100})
    now = replace(then, labels={"good": 400, "bad": 600})
    (found,) = drift.drift(task, then, now, since="then")
    assert (found.channel, found.count) == ("y", 1000)
    assert "90% to 40% of windows" in found.text or "10% to 60% of windows" in found.text
    assert drift.drift(task, then, replace(then, labels={"good": 90, "bad": 10}), since="then") == []


@given(st.lists(st.floats(allow_infinity=False, width=32), max_size=60))
def test_every_reading_is_counted_once(values: list[float]) -> None:
    from fedsite.telemetry.task import read_task
    from tests.telemetry.conftest import DOCUMENT

    counts = drift.summarise(read_task(DOCUMENT), _survey(values)).channels["a"].counts
    assert counts.sum() == len(values)
    assert len(counts) == BINS + 3
    assert counts[BINS + 2] == np.isnan(np.array(values, np.float64)).sum()


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=20), st.lists(st.integers(0, 1000), min_size=2, max_size=20))
def test_the_index_is_finite_symmetric_and_not_negative(one: list[int], other: list[int]) -> None:
    size = min(len(one), len(other))
    a, b = np.array(one[:size]), np.array(other[:size])
    index, chance = drift.stability(a, b)
    assert 0 <= index < math.inf
    assert 0 <= chance < math.inf
    assert drift.stability(b, a)[0] == pytest.approx(index)


@pytest.mark.parametrize("name", ["pump", "ward"])
def test_generated_data_does_not_drift_from_itself(name: str) -> None:
    task, where = load_task(name), DataLocation(site=0)
    first = inspect(task, where)
    assert first.summary is not None
    assert sum(first.summary.labels.values()) == (len(first.data.train) if first.data and first.summary.labels else 0)
    again = inspect(task, where, reference=Reference(summary=first.summary, taken="then"))
    assert not [finding for finding in again.findings if finding.code == "drift"]
