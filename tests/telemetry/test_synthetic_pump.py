"""The synthetic plant: the same for the same seed, physically coherent, with faults whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsite.telemetry import loading, sources_survey, synthetic
from fedsite.telemetry import synthetic_pump as plant
from fedsite.telemetry.errors import TelemetryError
from fedsite.telemetry.loading import DataLocation
from fedsite.telemetry.task import load_task

Columns = dict[str, NDArray[np.generic]]


@pytest.fixture(scope="module")
def columns() -> Columns:
    return synthetic.generate("pump", 0, 0)


def _rows(columns: Columns, **wanted: str) -> NDArray[np.bool_]:
    found = np.ones(len(columns["time"]), dtype=bool)
    for name, value in wanted.items():
        found &= columns[name] == value
    return found


def test_same_arguments_same_readings(columns: Columns) -> None:
    again = synthetic.generate("pump", 0, 0)
    for name, values in columns.items():
        np.testing.assert_array_equal(values, again[name])
    assert not np.array_equal(columns["vibration"], synthetic.generate("pump", 0, 1)["vibration"])
    assert not np.array_equal(columns["vibration"], synthetic.generate("pump", 1, 0)["vibration"])


def test_one_row_per_machine_burst_and_second(columns: Columns) -> None:
    assert {len(values) for values in columns.values()} == {plant.MACHINES * plant.BURSTS * plant.READINGS}
    time = columns["time"].reshape(plant.MACHINES, plant.BURSTS, plant.READINGS)
    np.testing.assert_array_equal(np.diff(time, axis=2), 1.0)
    assert (time[:, 1:, 0] - time[:, :-1, -1]).min() > 3600
    assert len(np.unique(columns["machine"])) == plant.MACHINES


def test_readings_are_what_a_transmitter_can_report(columns: Columns) -> None:
    for name, (low, high) in plant.LIMITS.items():
        values = columns[name].astype(float)
        assert low <= values.min() <= values.max() <= high
        steps = values / plant.RESOLUTION[name]
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)


def test_training_knows_two_faults_and_the_holdout_all_four() -> None:
    for site in range(6):
        found = synthetic.generate("pump", site, 3)
        seen = {plant.CONDITIONS[index] for index in plant.FAULTS_SEEN[site]}
        assert set(found["condition"][_rows(found, split="train")]) == {"healthy"} | seen
        assert set(found["condition"][_rows(found, split="holdout")]) == set(plant.CONDITIONS)


def test_severity_never_shrinks_and_names_the_condition(columns: Columns) -> None:
    severity = columns["severity"].reshape(plant.MACHINES, -1)
    assert (np.diff(severity, axis=1) >= 0).all()
    healthy = columns["condition"] == "healthy"
    assert (columns["severity"][healthy] < plant.CONFIRMED + 1e-3).all()
    assert (columns["severity"][~healthy] > plant.CONFIRMED - 1e-3).all()


def test_every_fault_leaves_its_own_mark() -> None:
    found = synthetic.generate("pump", 0, 0)

    def mean(channel: str, condition: str) -> float:
        late = _rows(found, split="holdout", condition=condition)
        return float(found[channel][late].mean())

    assert mean("acceleration", "bearing_wear") > 1.5 * mean("acceleration", "healthy")
    assert mean("bearing_temperature", "bearing_wear") > mean("bearing_temperature", "healthy") + 3
    assert mean("vibration", "imbalance") > 1.5 * mean("vibration", "healthy")
    assert mean("acceleration", "imbalance") < 1.3 * mean("acceleration", "healthy")
    assert mean("flow", "clogged_strainer") < 0.9 * mean("flow", "healthy")
    pressure = found["pressure"].reshape(-1, plant.READINGS).std(axis=1)
    condition = found["condition"][:: plant.READINGS]
    assert pressure[condition == "cavitation"].mean() > 2 * pressure[condition == "healthy"].mean()


def test_load_drives_current_and_flow(columns: Columns) -> None:
    healthy = columns["severity"] == 0
    assert np.corrcoef(columns["flow"][healthy], columns["current"][healthy])[0, 1] > 0.8


def test_unknown_generator_and_negative_numbers_are_refused() -> None:
    with pytest.raises(TelemetryError, match="pump"):
        synthetic.generate("pomp", 0, 0)
    with pytest.raises(TelemetryError, match="from 0"):
        synthetic.generate("pump", -1, 0)


def test_the_shipped_task_reads_it() -> None:
    task = load_task("pump")
    data = loading.load_site(task, DataLocation(site=1))
    training = plant.MACHINES - plant.HOLDOUT
    assert data.train.x.shape == (training * plant.BURSTS, 1, len(task.features))
    assert data.holdout.x.shape == (plant.HOLDOUT * plant.BURSTS, 1, len(task.features))
    assert data.overlap == 1
    assert not set(data.train.entity) & set(data.holdout.entity)
    assert set(data.holdout.y) == set(range(len(plant.CONDITIONS)))


def test_generated_data_needs_no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSITE_DATA", "/nowhere")
    task, location = load_task("pump"), DataLocation(site="pump-0")
    assert len(loading.load_site(task, location).train)
    assert not sources_survey.read(task, location).problems
