"""Every shipped task is a valid document, and those on real files load by the protocol of their published figures."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from fedsite.telemetry import loading, task
from fedsite.telemetry.errors import TelemetryError
from fedsite.telemetry.loading import DataLocation

FIRST = DataLocation(site=0)
ALL = ("activity", "air_forecast", "digits", "engine_rul", "mnist", "pump", "pump_anomaly", "server_anomaly", "ward")


def _needs(name):
    try:
        path = FIRST.source(task.load_task(name))
    except TelemetryError as error:
        pytest.skip(f"task {name} needs its data: {error}")
    if not path.exists():
        pytest.skip(
            f"{path} is missing: docs/tasks.md says where it comes from; put it in the folder FEDSITE_DATA names"
        )
    return task.load_task(name)


def test_these_tasks_are_shipped():
    assert tuple(task.shipped_names()) == ALL


@pytest.mark.parametrize("name", ALL)
def test_a_shipped_task_is_whole(name):
    found = task.load_task(name)
    assert found.name == name
    assert found.title
    assert found.description
    assert task.read_task(json.loads(json.dumps(found.document))) == found
    assert all(channel.unit for channel in found.channels)
    assert found.data.sites
    assert found.training.local["steps"] > 0


@pytest.mark.parametrize("name", ALL)
def test_a_site_loads(name):
    found = task.load_task(name) if name in ("pump", "ward") else _needs(name)
    data = loading.load_site(found, FIRST)
    time, width = found.input_shape
    for part in (data.train, data.holdout):
        assert part.x.shape == (len(part), time, width)
        assert part.x.dtype == np.float32
        assert np.isfinite(part.x).all()
        assert (part.x >= data.minimum).all()
        assert (part.x <= data.maximum).all()
        assert len(part) > 0
    assert len(loading.site_names(found, DataLocation())) >= (found.data.sites or 1)
    again = loading.load_site(found, FIRST)
    np.testing.assert_array_equal(again.train.x, data.train.x)


def test_engine_rul_follows_the_published_protocol():
    found = _needs("engine_rul")
    sites = [loading.load_site(found, DataLocation(site=site)) for site in range(10)]
    assert sum(len(site.train) for site in sites) == 17731
    assert [len(site.holdout) for site in sites] == [10] * 10
    assert max(site.train.y.max() for site in sites) == 125
    assert min(site.train.y.min() for site in sites) == 0
    assert all(name.startswith("test/") for name in np.array(sites[0].holdout.entities)[sites[0].holdout.entity])
    # The last windows' labels are the challenge's own list, capped: 112, 98, 69, 82, 91 are its first.
    assert sites[0].holdout.y[:5, 0].tolist() == [112, 98, 69, 82, 91]


def test_pump_anomaly_trains_on_the_first_400_readings_only():
    found = _needs("pump_anomaly")
    assert loading.site_names(found, DataLocation()) == ["other", "valve1", "valve2"]
    data = loading.load_site(found, DataLocation(site="valve2"))
    for entity in range(4):
        train, held = (part.time[part.entity == entity] for part in (data.train, data.holdout))
        assert 0 < len(train) <= 396
        assert train.max() < held.min()
    assert set(data.holdout.y.tolist()) == {0, 1}


@pytest.mark.parametrize(("name", "sites", "train", "test"), [("digits", 10, 1437, 360), ("mnist", 20, 45015, 10000)])
def test_a_shared_test_set_is_dealt_out_once(name, sites, train, test):
    found = _needs(name)
    wanted = range(sites) if name == "digits" else range(0, sites, 7)
    data = [loading.load_site(found, DataLocation(site=site)) for site in wanted]
    assert {len(site.holdout) for site in data} == {test // sites}
    if name == "digits":
        assert sum(len(site.train) for site in data) == train
        images = np.concatenate([site.holdout.x.reshape(-1, 64) for site in data])
        assert len(np.unique(images, axis=0)) == test


def test_an_image_keeps_its_rows_and_columns():
    pixels = loading.load_site(_needs("digits"), FIRST).train.x
    assert pixels.shape[1:] == (8, 8)
    # Digits stand upright in the middle: the outer columns are dark, the outer rows are not.
    assert pixels[:, :, 0].mean() < 0.1 < pixels[:, 0, :].mean()


def test_air_forecast_looks_six_hours_ahead_and_splits_in_time():
    found = _needs("air_forecast")
    assert found.input_shape == (1, 33)
    data = loading.load_site(found, FIRST)
    cut = 1456790400.0  # 2016-03-01
    hour = 3600.0
    assert data.train.time.max() + 6 * hour < cut
    assert data.holdout.time.min() - 12 * hour >= cut
    now = data.holdout.x[:, 0, data.features.index("PM2.5.last")]
    at = dict(zip(data.holdout.time, now, strict=True))
    pairs = [
        (at[time + 6 * hour], y)
        for time, y in zip(data.holdout.time, data.holdout.y[:, 0], strict=True)
        if time + 6 * hour in at
    ]
    assert len(pairs) > 5000
    assert all(later == y for later, y in pairs)


def test_own_files_take_the_place_of_the_tasks(tmp_path):
    import polars as pl

    found = _needs("engine_rul")
    mine = pl.read_parquet(FIRST.source(found)).filter(pl.col("site") == "fleet03").drop("site").rename({"s2": "T24"})
    mine.write_csv(tmp_path / "mine.csv")
    data = loading.load_site(found, DataLocation(path=Path(tmp_path / "mine.csv"), columns={"s2": "T24"}))
    wanted = loading.load_site(found, DataLocation(site="fleet03"))
    np.testing.assert_allclose(data.train.x, wanted.train.x, rtol=1e-6)
    np.testing.assert_array_equal(data.train.y, wanted.train.y)


def test_a_missing_data_folder_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDSITE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(TelemetryError, match=r"FEDSITE_DATA is .*nowhere, which is no folder.*export FEDSITE_DATA"):
        loading.load_site(task.load_task("engine_rul"), FIRST)
    monkeypatch.setenv("FEDSITE_DATA", str(tmp_path))
    with pytest.raises(TelemetryError, match=r"cmapss_fd001/data.parquet does not exist"):
        loading.load_site(task.load_task("engine_rul"), FIRST)


def test_a_tasks_ranges_are_public_not_learned():
    found = _needs("activity")
    data = loading.load_site(found, FIRST)
    document = dataclasses.asdict(found)
    assert data.minimum.tolist()[:10] == [0.0] * 10
    assert document["channels"][0]["maximum"] == 1.0
