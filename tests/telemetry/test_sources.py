"""Reading files: what is taken, and what each kind of bad input is told."""

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fedsite.telemetry import sources
from fedsite.telemetry.errors import Code, TelemetryError
from fedsite.telemetry.loading import DataLocation, load_site, site_names


def _load(task, path, **location):
    return sources.load_table(task, DataLocation(path=Path(path), **location))


def test_a_csv_file(toy_file, toy_task):
    table = _load(toy_task(), toy_file())
    assert table.values[:, 0].tolist() == list(range(10))
    assert table.values[:, 1].tolist() == [0.5] * 10
    assert table.time.tolist() == list(range(10))
    assert table.entities == ("m1",)
    assert table.label.tolist() == list(range(10))


def test_parquet_and_csv_of_other_shapes_give_the_same(toy_file, toy_task, tmp_path):
    wanted = _load(toy_task(), toy_file())
    frame = pl.read_csv(toy_file())
    frame.write_parquet(tmp_path / "toy.parquet")
    semicolons = toy_file("semicolons.csv", separator=";")
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(toy_file().read_bytes()))
    marked = tmp_path / "marked.csv"
    marked.write_bytes(b"\xef\xbb\xbf" + toy_file().read_bytes())
    for path in (tmp_path / "toy.parquet", semicolons, packed, marked):
        found = _load(toy_task(), path)
        np.testing.assert_array_equal(found.values, wanted.values)
        np.testing.assert_array_equal(found.label, wanted.label)


def test_a_folder_of_files_whose_names_are_the_machines(toy_file, toy_task, tmp_path):
    for name in ("m10", "m2"):
        toy_file(f"{name}.csv", machine=None)
    table = _load(toy_task(data={"entity": "@file"}), tmp_path)
    assert table.entities == ("m2", "m10")
    assert np.bincount(table.entity).tolist() == [10, 10]


def test_rows_come_in_order_of_entity_and_time(toy_file, toy_task):
    path = toy_file(machine=["b", "a"] * 5, time=[9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    table = _load(toy_task(), path)
    assert table.entity.tolist() == [0] * 5 + [1] * 5
    assert table.time.tolist() == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    assert table.values[:5, 0].tolist() == [9, 7, 5, 3, 1]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-05-01T12:00:0{}", 1714564800),
        ("2024-05-01 12:00:0{}", 1714564800),
        ("2024-05-01T12:00:0{}Z", 1714564800),
        ("171456480{}.5", 1714564800.5),
    ],
)
def test_times_as_people_write_them(toy_file, toy_task, text, seconds):
    table = _load(toy_task(), toy_file(time=[text.format(index) for index in range(10)]))
    assert table.time.tolist() == [seconds + index for index in range(10)]


def test_the_site_says_what_its_columns_are_called(toy_file, toy_task):
    path = toy_file(a=None, **{"T oil": list(range(10))})
    assert _load(toy_task(), path, columns={"a": "T oil"}).values[:, 0].tolist() == list(range(10))


def test_a_unit_in_the_header_is_converted(toy_file, toy_task):
    path = toy_file(a=None, b=None, **{"a [degF]": [41.0] * 10, "b (mbar)": [500.0] * 10})
    table = _load(toy_task(), path)
    assert table.values[0] == pytest.approx([5.0, 0.5])


def test_a_unit_in_the_sites_mapping_is_converted(toy_file, toy_task):
    path = toy_file(a=None, oil=[278.15] * 10)
    assert _load(toy_task(), path, columns={"a": "oil [K]"}).values[0, 0] == pytest.approx(5.0, abs=1e-4)


def test_yes_no_columns_are_one_and_zero(toy_file, toy_task):
    table = _load(toy_task(), toy_file(y=["true", "false"] * 5))
    assert table.label.tolist() == [1, 0] * 5


def test_the_last_of_two_rows_with_one_time(toy_file, toy_task):
    path = toy_file(time=[0, 1, 1, 2, 3, 4, 5, 6, 7, 8])
    table = _load(toy_task(data={"duplicates": "last"}), path)
    assert table.values[:, 0].tolist() == [0, 2, 3, 4, 5, 6, 7, 8, 9]


def test_readings_outside_are_clipped_or_dropped_where_a_channel_says_so(toy_file, toy_task):
    path = toy_file(a=[-5, 50] + [1] * 8)
    for outside, expected in (("clip", [0, 10]), ("missing", [None, None])):
        channels = [
            {"name": "a", "minimum": 0, "maximum": 10, "outside": outside},
            {"name": "b", "minimum": -1, "maximum": 1},
        ]
        found = _load(toy_task(channels=channels), path).values[:2, 0]
        assert [None if np.isnan(value) else value for value in found] == expected


def test_sites_of_one_file(toy_file, toy_task):
    path = toy_file(site=["s10"] * 5 + ["s2"] * 5)
    task = toy_task(data={"site_column": "site"})
    where = DataLocation(path=path)
    assert site_names(task, where) == ["s2", "s10"]
    assert _load(task, path, site="s10").time.tolist() == [0, 1, 2, 3, 4]
    assert _load(task, path, site=0).time.tolist() == [5, 6, 7, 8, 9]
    assert len(_load(task, path)) == 10  # no site named: the whole file is the site's own


def test_a_column_splits_and_excludes(toy_file, toy_task):
    path = toy_file(part=["train"] * 6 + ["test"] * 4, spare=[0, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    table = _load(toy_task(split={"kind": "column", "column": "part", "exclude": {"spare": 1}}), path)
    assert table.time[~table.held].tolist() == [0, 1, 3, 4, 5]
    assert table.time[table.held].tolist() == [6, 7, 8, 9]


def test_a_shared_test_set_is_dealt_out_whole(toy_file, toy_task):
    path = toy_file(site=["A"] * 3 + ["B"] * 2 + ["-1"] * 5, part=["train"] * 5 + ["test"] * 5)
    task = toy_task(data={"site_column": "site"}, split={"kind": "column", "column": "part", "shared": True})
    assert site_names(task, DataLocation(path=path)) == ["A", "B"]
    held = [table.time[table.held].tolist() for table in (_load(task, path, site="A"), _load(task, path, site="B"))]
    assert held == [[5, 7, 9], [6, 8]]


def test_only_rows_that_the_task_keeps(toy_file, toy_task):
    path = toy_file(mode=["run", "idle"] * 5)
    assert len(_load(toy_task(data={"where": {"mode": ["run"]}}), path)) == 5
    assert len(_load(toy_task(data={"where": {"another": ["run"]}}), path)) == 10


def test_a_site_without_ground_truth_can_train_a_reconstruction(toy_file, toy_task):
    task = toy_task(label={"kind": "self", "column": "y"}, loss="reconstruction", metric={"name": "auroc"})
    data = load_site(task, DataLocation(path=toy_file(y=None)))
    assert data.train.y.tolist() == [0] * 8


def test_npz_blocks(toy_task, tmp_path):
    path = tmp_path / "toy.npz"
    np.savez(path, p=np.arange(12).reshape(3, 4), y=np.array([0, 1, 2]))
    channels = [{"name": "p", "count": 4, "minimum": 0, "maximum": 11}]
    task = toy_task(data={"entity": None, "time": None}, channels=channels, window={"length": 1})
    assert _load(task, path).values.tolist() == np.arange(12).reshape(3, 4).tolist()


@pytest.mark.parametrize(
    ("columns", "code", "words"),
    [
        ({"a": None}, Code.COLUMN, ["column a is missing", "machine, time, y", "data.columns.a="]),
        ({"a": None, "aa": [1] * 10}, Code.COLUMN, ["did you mean aa?"]),
        ({"a": [1] * 9 + ["warm"]}, Code.TYPE, ["column a is 'warm' in row 10"]),
        ({"a": [1] * 9 + [11]}, Code.RANGE, ["channel a is 11 in row 10", "1 of 10 rows", "0 to 10 degC"]),
        ({"a": [1] * 9 + ["inf"]}, Code.RANGE, ["channel a is infinite in row 10"]),
        ({"b": [""] * 10}, Code.ALL_MISSING, ["channel b has no value in any of 10 rows", "-1 to 1 bar"]),
        ({"b": ["NaN"] * 10}, Code.ALL_MISSING, ["channel b has no value"]),
        ({"a": None, "a [bar]": [1] * 10}, Code.UNIT, ["channel a is in bar", "degC, degF, K"]),
        ({"time": ["yesterday"] * 10}, Code.TIME, ["time column time is 'yesterday' in row 1"]),
        ({"time": [0] * 10}, Code.TIME, ["9 rows have the time of another row", "duplicates: last"]),
        ({"machine": [""] * 10}, Code.TYPE, ["machine", "empty in 10 of 10 rows"]),
    ],
)
def test_bad_tables(toy_file, toy_task, columns, code, words):
    path = toy_file(**columns)
    with pytest.raises(TelemetryError) as caught:
        _load(toy_task(), path)
    assert caught.value.code is code
    assert caught.value.exit_code == 3
    assert caught.value.next_step
    assert str(path) in caught.value.found or code is Code.TYPE
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x00\x1b[2J\n", b"a,b\xb0C,time\n1,2,3\n"])
def test_a_csv_that_is_no_text_is_not_quoted(toy_task, tmp_path, content):
    path = tmp_path / "photo.csv"
    path.write_bytes(content)
    with pytest.raises(TelemetryError, match="text") as caught:
        _load(toy_task(), path)
    assert caught.value.code is Code.UNREADABLE
    assert str(caught.value).isprintable()


def test_an_unknown_class(toy_file, toy_task):
    task = toy_task(label={"kind": "column", "column": "y", "classes": ["on", "off"]}, loss="cross_entropy")
    with pytest.raises(TelemetryError, match=r"class 'broken' \(1 of 10 rows\); allowed: on, off") as caught:
        _load(task, toy_file(y=["on"] * 9 + ["broken"]))
    assert caught.value.code is Code.CLASS


def test_too_few_windows(toy_file, toy_task):
    with pytest.raises(
        TelemetryError, match=r"8 training windows of 3 rows .*at least 50.*fedsite data check"
    ) as caught:
        load_site(toy_task(window={"length": 3, "minimum": 50}), DataLocation(path=toy_file()))
    assert caught.value.code is Code.TOO_FEW


def test_no_file_no_telemetry_and_mixed_folders(toy_task, toy_file, tmp_path):
    with pytest.raises(TelemetryError, match="does not exist") as caught:
        _load(toy_task(), tmp_path / "nowhere.csv")
    assert caught.value.code is Code.MISSING
    (tmp_path / "empty").mkdir()
    with pytest.raises(TelemetryError, match="holds no telemetry file"):
        _load(toy_task(), tmp_path / "empty")
    pl.read_csv(toy_file()).write_parquet(tmp_path / "toy.parquet")
    with pytest.raises(TelemetryError, match="holds csv and parquet files"):
        _load(toy_task(), tmp_path)


@pytest.mark.parametrize("name", ["toy.parquet", "toy.npz", "toy.csv"])
def test_a_file_that_is_not_what_its_name_says(toy_task, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(bytes(range(256)) * 8)
    with pytest.raises(TelemetryError) as caught:
        _load(toy_task(), path)
    assert caught.value.code in (Code.UNREADABLE, Code.COLUMN)
    assert str(path) in caught.value.found


def test_an_empty_file(toy_task, tmp_path):
    path = tmp_path / "toy.csv"
    path.touch()
    with pytest.raises(TelemetryError, match="cannot be read"):
        _load(toy_task(), path)


def test_files_of_one_folder_must_agree_on_units(toy_file, toy_task, tmp_path):
    toy_file("one.csv", a=None, **{"a [degC]": [1] * 10})
    toy_file("two.csv", a=None, **{"a [K]": [274] * 10}, time=list(range(10, 20)))
    with pytest.raises(TelemetryError, match=r"column a is in K, in the files before in degC"):
        _load(toy_task(), tmp_path)


def test_an_unknown_site_and_an_unknown_mapping(toy_file, toy_task):
    path = toy_file(site=["north"] * 10)
    task = toy_task(data={"site_column": "site"})
    with pytest.raises(TelemetryError, match=r"site 'nroth' is not in it; allowed: north \(did you mean north\?\)"):
        _load(task, path, site="nroth")
    with pytest.raises(TelemetryError, match=r"data.columns.tmie .*did you mean time"):
        _load(toy_task(), path, columns={"tmie": "t"})
