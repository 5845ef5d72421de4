"""Context and events joined as of a reading's time: never from later, never from another entity."""

import numpy as np
import pytest

from fedsite.telemetry import sources
from fedsite.telemetry.errors import TelemetryError
from fedsite.telemetry.loading import DataLocation

LOAD = {"name": "load", "unit": "kW", "minimum": 0, "maximum": 100, "missing": "minimum"}
SINCE = {"name": "since", "unit": "s", "minimum": 0, "maximum": 5}
A = {"name": "a", "minimum": 0, "maximum": 10}


@pytest.fixture
def readings(toy_file):
    """Machines m1 and m2, five readings each, at times 0..4."""
    return toy_file(machine=["m1"] * 5 + ["m2"] * 5, time=[0, 1, 2, 3, 4] * 2)


def _column(task, path, index):
    table = sources.load_table(task, DataLocation(path=path))
    return [None if np.isnan(value) else float(value) for value in table.values[:, index]]


def test_the_latest_fact_known_at_the_time(toy_task, readings, tmp_path):
    (tmp_path / "facts").mkdir()
    facts = tmp_path / "facts" / "load.csv"
    facts.write_text("machine,from,load\nm1,3,30\nm1,1,10\nm2,0,50\nm2,9,90\n")
    context = {"file": "facts/load.csv", "entity": "machine", "time": "from", "columns": ["load"]}
    task = toy_task(channels=[A, LOAD], context=context)
    assert _column(task, readings, 1) == [None, 10, 10, 30, 30, 50, 50, 50, 50, 50]


def test_a_fact_grows_too_old(toy_task, readings, tmp_path):
    (tmp_path / "load.txt").mkdir()
    (tmp_path / "load.txt" / "load.csv").write_text("machine,from,load\nm1,1,10\nm2,0,50\n")
    context = {"file": "load.txt", "entity": "machine", "time": "from", "columns": ["load"], "tolerance": 2}
    task = toy_task(channels=[A, LOAD], context=context)
    assert _column(task, readings, 1) == [None, 10, 10, 10, None, 50, 50, 50, None, None]


def test_facts_without_a_time_hold_always(toy_task, readings, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "load.csv").write_text("machine,load\nm1,10\nm2,50\n")
    context = {"file": "c", "entity": "machine", "columns": ["load"]}
    assert _column(toy_task(channels=[A, LOAD], context=context), readings, 1) == [10] * 5 + [50] * 5
    (tmp_path / "c" / "load.csv").write_text("load\n70\n")
    context = {"file": "c", "columns": ["load"]}
    assert _column(toy_task(channels=[A, LOAD], context=context), readings, 1) == [70] * 10


def test_time_since_the_last_event_of_its_kind(toy_task, readings, tmp_path):
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "log.csv").write_text("machine,at,what\nm1,1,service\nm1,2,alarm\nm2,2.5,service\n")
    events = {"file": "e", "entity": "machine", "time": "at", "kind": "what", "kinds": ["service"], "since": "since"}
    task = toy_task(channels=[A, SINCE], events=events)
    assert _column(task, readings, 1) == [5, 0, 1, 2, 3, 5, 5, 5, 0.5, 1.5]


def test_an_event_within_the_horizon_is_a_label(toy_task, readings, tmp_path):
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "log.csv").write_text("machine,at\nm1,3\n")
    events = {"file": "e", "entity": "machine", "time": "at", "within": "fails", "horizon": 2}
    task = toy_task(channels=[A], events=events, label={"kind": "column", "column": "fails"})
    label = sources.load_table(task, DataLocation(path=readings)).label
    found = [None if np.isnan(value) else value for value in label]
    # m1 fails at 3: its readings at 1 and 2 are warnings, the one at 3 is not; what comes after 4 nobody has seen.
    assert found == [0, 1, 1, None, None, 0, 0, 0, None, None]


def test_joined_tables_among_the_readings_are_no_readings(toy_task, readings, tmp_path):
    (tmp_path / "load.csv").write_text("machine,load\nm1,10\nm2,50\n")
    context = {"file": "load.csv", "entity": "machine", "columns": ["load"]}
    task = toy_task(channels=[A, LOAD], context=context)
    assert _column(task, readings.parent, 1) == [10] * 5 + [50] * 5


def test_a_context_file_that_is_not_there(toy_task, readings):
    context = {"file": "nowhere.csv", "entity": "machine", "columns": ["load"]}
    with pytest.raises(TelemetryError, match=r"nowhere.csv does not exist"):
        sources.load_table(toy_task(channels=[A, LOAD], context=context), DataLocation(path=readings))
