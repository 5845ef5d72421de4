"""The synthetic wards: the same for the same seed, events where the drift ends, gaps and loose probes as in life."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsite.telemetry import loading, synthetic
from fedsite.telemetry import synthetic_ward as ward
from fedsite.telemetry.loading import DataLocation
from fedsite.telemetry.task import load_task

Columns = dict[str, NDArray[np.generic]]


@pytest.fixture(scope="module")
def columns() -> Columns:
    return synthetic.generate("ward", 0, 0)


def test_same_arguments_same_readings(columns: Columns) -> None:
    again = synthetic.generate("ward", 0, 0)
    for name, values in columns.items():
        np.testing.assert_array_equal(values, again[name])
    assert len(columns["time"]) != len(synthetic.generate("ward", 1, 0)["time"])


def test_a_patients_readings_stand_in_order_of_time(columns: Columns) -> None:
    same = columns["patient"][1:] == columns["patient"][:-1]
    gaps = np.diff(columns["time"].astype(float))[same]
    assert gaps.min() == ward.STEP
    assert len(np.unique(columns["patient"])) == ward.PATIENTS


def test_monitors_are_off_now_and_then(columns: Columns) -> None:
    same = columns["patient"][1:] == columns["patient"][:-1]
    steps = np.diff(columns["time"].astype(float))[same] / ward.STEP
    assert ((steps > 1) & (steps <= 6)).sum() > 50
    assert (steps > 12).any()
    assert 0.005 < np.isnan(columns["spo2"].astype(float)).mean() < 0.03


def test_the_truth_is_the_six_hours_before_the_event(columns: Columns) -> None:
    time = columns["time"].astype(float)
    for patient in np.unique(columns["patient"]):
        mine = columns["patient"] == patient
        events = time[mine][columns["event"][mine] == 1]
        assert len(events) <= 1
        expected = events.size and (time[mine] >= events[0] - ward.HORIZON * ward.STEP)
        np.testing.assert_array_equal(columns["deteriorates"][mine] == 1, expected)
        if events.size:
            assert events[0] == time[mine].max()


def test_vitals_drift_before_an_event(columns: Columns) -> None:
    near, far = columns["deteriorates"] == 1, columns["deteriorates"] == 0
    for name in ("heart_rate", "respiratory_rate"):
        assert np.nanmean(columns[name][near]) > np.nanmean(columns[name][far]) + 1
    for name, (low, high) in ward.LIMITS.items():
        values = columns[name].astype(float)
        assert low <= np.nanmin(values) <= np.nanmax(values) <= high


def test_the_shipped_task_reads_it() -> None:
    task = load_task("ward")
    data = loading.load_site(task, DataLocation(site=2))
    assert data.train.x.shape[1:] == (1, len(task.features)) == task.input_shape
    assert np.isfinite(data.train.x).all()
    assert not set(data.train.entity) & set(data.holdout.entity)
    assert len(np.unique(data.train.entity)) == ward.PATIENTS - ward.HOLDOUT
    assert 0.05 < data.train.y.mean() < 0.3
    assert 0.05 < data.holdout.y.mean() < 0.3
