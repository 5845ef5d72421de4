"""Whatever is wrong with a file, a check answers with findings, each with its remedy, and never with a traceback."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.telemetry import contract
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.task import Task, load_task, read_task

NOW = 1_800_000_000.0
COUNT = 40
DOCUMENT: dict[str, Any] = {
    "schema": "fedsite.task/1",
    "name": "toy",
    "data": {"file": "toy.csv", "entity": "unit", "time": "time"},
    "channels": [
        {"name": "temp", "unit": "degC", "minimum": 0.0, "maximum": 100.0},
        {"name": "flow", "unit": "m3/h", "minimum": 0.0, "maximum": 10.0, "outside": "clip", "missing": "interpolate"},
    ],
    "rate": {"seconds": 10.0, "unit": "s"},
    "window": {
        "length": 4,
        "gap": {"longest": 3, "policy": "interpolate"},
        "missing": {"policy": "hold", "longest": 2},
    },
    "label": {"kind": "column", "column": "state", "classes": ["good", "bad"]},
    "split": {"kind": "time", "fraction": 0.3},
    "model": {"name": "mlp"},
    "loss": "cross_entropy",
    "metric": {"name": "accuracy", "better": "higher"},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "by entity": {"split": {"kind": "entity", "fraction": 0.5}},
    "by column": {"split": {"kind": "column", "column": "state", "train": "good", "holdout": "bad"}},
    "last of a time": {"data": {**DOCUMENT["data"], "duplicates": "last"}, "window": {"length": 4, "pad": "edge"}},
    "no clock": {"data": {"file": "toy.csv"}, "rate": {"unit": "row"}},
    "a horizon": {"label": {"kind": "horizon", "column": "temp", "ahead": 2}, "loss": "mse",
                  "metric": {"name": "rmse", "better": "lower"}},
    "a reconstruction": {"label": {"kind": "self"}, "loss": "reconstruction",
                         "metric": {"name": "best_f1", "better": "higher"}},
}  # fmt: skip
TASKS = {name: read_task(DOCUMENT | change) for name, change in VARIANTS.items()}
CELLS = st.sampled_from(
    ["", "NaN", "nan", "inf", "-inf", "1e400", "-1e308", "1e308", "99999999999999999999", "warm", "7,5", "true", "None",
     "0x1F", "2024-05-01", "2024-05-01T12:00:00Z", "2024-05-01T12:00:00+02:00", "2024-05-01 12:00", "1970-01-01",
     "9999-12-31T23:59:59Z", "-5", '"', "\t", "\u202e", "ä", "1;2", "good", "GOOD", "bad.0", "\x1a", "٣", "1_000"]
)  # fmt: skip


def columns() -> dict[str, list[str]]:
    half = COUNT // 2
    return {
        "unit": ["a"] * half + ["b"] * half,
        "time": [str(NOW - 10 * (half - i % half)) for i in range(COUNT)],
        "temp": [f"{20 + i % 7}" for i in range(COUNT)],
        "flow": [f"{1 + i % 3}" for i in range(COUNT)],
        "state": ["good" if i % 8 > 3 else "bad" for i in range(COUNT)],
    }


NAMES, COLUMNS = st.sampled_from(sorted(TASKS)), st.sampled_from(sorted(columns()))
ZONES = st.sampled_from(["Z", "+00:00", "+02:00", "-11:30", "", " UTC", "[Europe/Berlin]", "+99:00"])


def csv(table: dict[str, list[str]]) -> bytes:
    rows = [",".join(table), *(",".join(row) for row in zip(*table.values(), strict=True))]
    return ("\n".join(rows) + "\n").encode()


def judged(task: Task, name: str, data: bytes) -> None:
    """Check a file of these bytes, twice: the second time against what it looked like the first."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        where = DataLocation(path=path, oldest_s=3600.0)
        found = contract.inspect(task, where, now=NOW)
        if found.summary is not None:
            reference = contract.Reference(summary=found.summary, taken="then")
            found = contract.inspect(task, where, now=NOW, reference=reference)
            assert not [finding for finding in found.findings if finding.code == "drift"]
    assert found.ok == (not contract.codes(found.findings))
    for finding in found.findings:
        assert finding.text
        assert finding.remedy
        assert finding.count >= 0


def test_the_whole_file_is_fine() -> None:
    for name, task in TASKS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "toy.csv"
            path.write_bytes(csv(columns()))
            found = contract.inspect(task, DataLocation(path=path), now=NOW)
        # The two entities of the toy may well fall on one side.
        assert found.ok or name == "by entity", (name, found.findings)


@settings(deadline=None, max_examples=150)
@given(NAMES, st.lists(st.tuples(COLUMNS, st.integers(0, COUNT - 1), CELLS), max_size=12))
def test_cells_of_every_kind(name: str, changes: list[tuple[str, int, str]]) -> None:
    table = columns()
    for column, row, value in changes:
        table[column][row] = value
    judged(TASKS[name], "toy.csv", csv(table))


@settings(deadline=None, max_examples=60)
@given(NAMES, COLUMNS, CELLS)
def test_a_whole_column_of_one_value(name: str, column: str, value: str) -> None:
    judged(TASKS[name], "toy.csv", csv(columns() | {column: [value] * COUNT}))


@settings(deadline=None, max_examples=60)
@given(NAMES, st.lists(st.integers(0, COUNT - 1), max_size=3 * COUNT))
def test_rows_that_are_lost_doubled_or_in_another_order(name: str, rows: list[int]) -> None:
    table = {column: [values[row] for row in rows] for column, values in columns().items()}
    judged(TASKS[name], "toy.csv", csv(table))


@settings(deadline=None, max_examples=60)
@given(st.lists(ZONES, min_size=1, max_size=COUNT))
def test_time_zones_are_mixed(zones: list[str]) -> None:
    moments = [f"2024-10-27T02:{i // 6:02d}:{i % 6}0{zones[i % len(zones)]}" for i in range(COUNT)]
    judged(TASKS["as it is"], "toy.csv", csv(columns() | {"time": moments, "unit": ["a"] * COUNT}))


def _parquet() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.parquet"
        frame = pl.DataFrame(columns()).with_columns(pl.col("time", "temp", "flow").cast(pl.Float64))
        frame.write_parquet(path)
        return path.read_bytes()


def _npz(**change: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.npz"
        table: dict[str, Any] = {name: np.array(values) for name, values in columns().items()}
        table |= {name: np.array(columns()[name], np.float64) for name in ("time", "temp", "flow")}
        np.savez(path, **{name: value for name, value in (table | change).items() if value is not None})
        return path.read_bytes()


WHOLE = {
    "toy.csv": csv(columns()),
    "toy.csv.gz": gzip.compress(csv(columns())),
    "toy.parquet": _parquet(),
    "toy.npz": _npz(),
}
ENDINGS = st.sampled_from([*WHOLE, "toy.pq", "toy.txt", "toy"])


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 1), st.binary(max_size=8), st.booleans())
def test_files_that_are_cut_or_overwritten(name: str, at: float, junk: bytes, cut: bool) -> None:
    data = WHOLE[name]
    place = int(at * len(data))
    judged(TASKS["as it is"], name, data[:place] + junk + (b"" if cut else data[place + len(junk) :]))


@settings(deadline=None, max_examples=40)
@given(ENDINGS, st.binary(max_size=200))
def test_files_of_anything(name: str, data: bytes) -> None:
    judged(TASKS["as it is"], name, data)


SERIES: dict[str, Callable[[], pl.Series]] = {
    "list": lambda: pl.Series([[1.0, 2.0]] * COUNT),
    "struct": lambda: pl.Series([{"a": 1}] * COUNT),
    "binary": lambda: pl.Series([b"\xff"] * COUNT),
    "null": lambda: pl.Series([None] * COUNT),
    "categorical": lambda: pl.Series(["1"] * COUNT, dtype=pl.Categorical),
    "duration": lambda: pl.Series(range(COUNT)).cast(pl.Duration("us")),
    "clock": lambda: pl.Series(range(COUNT)).cast(pl.Time),
    "decimal": lambda: pl.Series(range(COUNT)).cast(pl.Decimal(10, 2)),
    "boolean": lambda: pl.Series([True] * COUNT),
    "zoned": lambda: pl.Series(range(COUNT)).cast(pl.Datetime("us", "Europe/Berlin")),
    "large": lambda: pl.Series([2**64 - 1] * COUNT, dtype=pl.UInt64),
    "nan": lambda: pl.Series([float("nan")] * COUNT),
    "array": lambda: pl.Series(np.zeros((COUNT, 3))),
}


@pytest.mark.parametrize("kind", SERIES)
@pytest.mark.parametrize("column", sorted(columns()))
def test_columns_of_every_type(kind: str, column: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.parquet"
        pl.DataFrame(columns()).with_columns(SERIES[kind]().alias(column)).write_parquet(path)
        data = path.read_bytes()
    for task in TASKS.values():
        judged(task, "toy.parquet", data)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((COUNT, 2)), np.zeros(3), np.float64(3.0), np.zeros((0,)), np.array(["x"] * COUNT),
        np.zeros(COUNT, bool),        np.zeros(COUNT, complex), np.full(COUNT, np.nan), np.array([b"x"] * COUNT),
        np.zeros(COUNT, "datetime64[s]"),
        np.zeros(COUNT, "timedelta64[s]"), np.zeros(COUNT, [("a", float)]), np.zeros((COUNT, 2, 2), np.float16), None,
        np.zeros(COUNT, np.float16), np.zeros(COUNT, ">f8"), np.zeros((COUNT, 0)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("column", sorted(columns()))
def test_arrays_of_every_type(value: Any, column: str) -> None:
    data = _npz(**{column: value})
    for task in TASKS.values():
        judged(task, "toy.npz", data)


def test_pickles_are_never_opened() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.npz"
        np.savez(path, temp=np.array([{}] * COUNT, dtype=object))
        judged(TASKS["as it is"], "toy.npz", path.read_bytes())


def test_files_of_a_folder_that_do_not_fit_together(tmp_path: Path) -> None:
    frame = pl.DataFrame(columns()).with_columns(pl.col("temp", "flow").cast(pl.Float64))
    zoned = pl.from_epoch(pl.col("time").cast(pl.Float64).cast(pl.Int64))
    frame.with_columns(zoned.alias("time")).write_parquet(tmp_path / "1.parquet")
    frame.with_columns(zoned.dt.replace_time_zone("UTC").alias("time")).write_parquet(tmp_path / "2.parquet")
    found = contract.inspect(TASKS["as it is"], DataLocation(path=tmp_path), now=NOW)
    assert not found.ok
    (tmp_path / "2.parquet").unlink()
    (tmp_path / "2.csv").write_bytes(csv(columns()))
    assert contract.codes(contract.check(TASKS["as it is"], DataLocation(path=tmp_path))) == ("data-missing",)


@pytest.mark.parametrize(
    "path", ["/proc/self/mem", "/dev/null", "/nonexistent", ".", "/dev/zero/x", "a\0b", "x" * 5000]
)
def test_paths_that_are_no_data(path: str) -> None:
    for name in ("pump", "engine_rul"):
        assert not contract.inspect(load_task(name), DataLocation(path=Path(path)), now=NOW).ok


def test_a_block_where_a_column_should_be_and_the_other_way_round() -> None:
    digits = {name: np.zeros(COUNT, np.int64) for name in ("label", "site")} | {"split": np.array(["train"] * COUNT)}
    with tempfile.TemporaryDirectory() as folder:
        for pixels in (
            np.zeros(COUNT),
            np.zeros((COUNT, 63)),
            np.zeros((COUNT, 8, 8, 2)),
            np.zeros((COUNT, 64), complex),
        ):
            path = Path(folder) / "digits.npz"
            np.savez(path, p=pixels, **digits)
            found = contract.inspect(load_task("digits"), DataLocation(path=path))
            assert ("not-a-number", "p") in {(str(some.code), some.channel) for some in found.findings}
