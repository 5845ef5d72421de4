"""The data contract: each way a file can be wrong has its code, its count and a remedy; all of them at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedsite.telemetry import contract
from fedsite.telemetry.contract import Finding
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.task import Task, load_task, read_task

NOW = 1_800_000_000.0
HEADER = "unit,time,temp,flow,state"


def _task(**changes: Any) -> Task:
    document: dict[str, Any] = {
        "schema": "fedsite.task/1",
        "name": "toy",
        "data": {"file": "toy.csv", "entity": "unit", "time": "time"},
        "channels": [
            {"name": "temp", "unit": "degC", "minimum": 0.0, "maximum": 100.0},
            {"name": "flow", "unit": "m3/h", "minimum": 0.0, "maximum": 10.0},
        ],
        "rate": {"seconds": 10.0, "unit": "s"},
        "window": {"length": 4, "stride": 4, "minimum": 2},
        "label": {"kind": "column", "column": "state", "classes": ["good", "bad"]},
        "split": {"kind": "time", "fraction": 0.3},
        "model": {"name": "mlp"},
        "loss": "cross_entropy",
        "metric": {"name": "accuracy", "better": "higher"},
    }
    return read_task(document | changes)


def _rows(count: int = 40, *, step: float = 10.0) -> list[list[str]]:
    return [
        ["a", str(NOW - (count - 1 - i) * step), f"{20 + i % 7}", f"{1 + i % 3}", "bad" if i % 8 > 3 else "good"]
        for i in range(count)
    ]


def _check(folder: Path, rows: list[list[str]], *, header: str = HEADER, **options: Any) -> list[Finding]:
    path = folder / "toy.csv"
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    columns, oldest_s = options.pop("columns", {}), options.pop("oldest_s", None)
    where = DataLocation(path=path, columns=columns, oldest_s=oldest_s)
    return contract.check(options.pop("task", None) or _task(), where, **options)


def _found(findings: list[Finding]) -> list[tuple[str, str, str, int]]:
    return [(finding.severity, str(finding.code), finding.channel, finding.count) for finding in findings]


def test_good_data_has_no_findings(tmp_path: Path) -> None:
    findings = _check(tmp_path, _rows(), now=NOW + 60, oldest_s=3600)
    assert findings == []
    assert contract.codes(findings) == ()


def test_missing_columns_are_named_together_with_the_nearest(tmp_path: Path) -> None:
    findings = _check(tmp_path, _rows(), header="unit,time,tmp,fluid,state")
    assert _found(findings) == [("error", "column-missing", "temp", 1), ("error", "column-missing", "flow", 1)]
    assert "tmp" in findings[0].allowed
    assert "data.columns.temp=" in findings[0].remedy
    assert contract.codes(findings) == ("column-missing",)


def test_several_problems_are_told_at_once(tmp_path: Path) -> None:
    rows = _rows()
    rows[3][2], rows[9][2] = "warm", "hot"
    for row in rows[:6]:
        row[3] = "11.5"
    findings = _check(tmp_path, rows)
    assert _found(findings) == [("error", "not-a-number", "temp", 2), ("error", "range", "flow", 6)]
    assert "'warm'" in findings[0].text
    assert "11.5" in findings[1].text
    assert findings[1].allowed == "0 to 10 m3/h"
    assert contract.codes(findings) == ("not-a-number", "range")


def test_another_unit_is_recognised(tmp_path: Path) -> None:
    rows = _rows()
    for row in rows:
        row[2] = str(float(row[2]) + 273.15)
    (finding,) = _check(tmp_path, rows)
    assert _found([finding]) == [("error", "unit", "temp", 40)]
    assert finding.remedy == 'it looks like K: data.columns.temp="COLUMN [K]"'
    assert _check(tmp_path, rows, columns={"temp": "temp [K]"}) == []


def test_a_unit_that_nothing_converts(tmp_path: Path) -> None:
    findings = _check(tmp_path, _rows(), header="unit,time,temp [bar],flow,state")
    assert _found(findings) == [("error", "unit", "temp", 40)]


def test_a_channel_without_any_value(tmp_path: Path) -> None:
    rows = [[*row[:2], "", *row[3:]] for row in _rows()]
    assert _found(_check(tmp_path, rows)) == [("error", "all-missing", "temp", 40)]


def test_a_channel_with_many_holes(tmp_path: Path) -> None:
    rows = _rows(80)
    for row in rows[:20]:
        row[3] = "NaN"
    assert ("warning", "missing-values", "flow", 20) in _found(_check(tmp_path, rows))


def test_a_stuck_sensor(tmp_path: Path) -> None:
    rows = [[*row[:2], "21", *row[3:]] for row in _rows()]
    (finding,) = _check(tmp_path, rows)
    assert _found([finding]) == [("warning", "constant", "temp", 40)]
    assert "channel temp is 21 in all 40 rows" in finding.text
    assert contract.codes([finding]) == ()


def test_another_sampling_rate(tmp_path: Path) -> None:
    (finding,) = _check(tmp_path, _rows(step=60.0))
    assert _found([finding]) == [("error", "sampling-rate", "time", 39)]
    assert "60 s apart" in finding.text


def test_readings_cut_off_by_gaps(tmp_path: Path) -> None:
    rows = _rows(60)
    for row in rows[:9]:  # three runs of three readings, each too short for a window of four
        row[1] = str(float(row[1]) - 1000 * (3 - rows.index(row) // 3))
    assert _found(_check(tmp_path, rows)) == []
    for row in rows[9:24]:
        row[1] = str(float(row[1]) - 40 * (8 - rows.index(row) // 3))
    assert ("warning", "gaps", "time", 24) in _found(_check(tmp_path, rows))


def test_too_few_windows(tmp_path: Path) -> None:
    (finding,) = _check(tmp_path, _rows(8))
    assert _found([finding]) == [("error", "too-few-windows", "", 1)]
    assert "fedsite data check" not in finding.remedy


def test_a_class_that_never_trains_and_one_that_is_unknown(tmp_path: Path) -> None:
    rows = [[*row[:4], "good"] for row in _rows()]
    finding, held = _check(tmp_path, rows)
    expected = [("warning", "label-balance", "state", count) for count in (1, 3)]
    assert _found([finding, held]) == expected
    assert "bad" in finding.text
    assert "all 3 windows held out are labelled good" in held.text
    rows[5][4] = "ugly"
    assert _found(_check(tmp_path, rows)) == [("error", "class", "state", 1)]


def test_a_binary_label_needs_both_answers(tmp_path: Path) -> None:
    label = {"kind": "column", "column": "state"}
    task = _task(label=label, loss="binary_cross_entropy", metric={"name": "auroc", "better": "higher"})
    rows = [[*row[:4], "0"] for row in _rows()]
    finding, _ = _check(tmp_path, rows, task=task)
    assert _found([finding]) == [("warning", "label-balance", "state", 1)]
    assert "labelled 1" in finding.text


def test_freshness_and_clocks(tmp_path: Path) -> None:
    assert _check(tmp_path, _rows(), now=NOW + 7200) == []
    (old,) = _check(tmp_path, _rows(), now=NOW + 7200, oldest_s=3600)
    assert _found([old]) == [("error", "stale", "time", 40)]
    assert "2.0 hours old" in old.text
    (ahead,) = _check(tmp_path, _rows(), now=NOW - 3600)
    assert _found([ahead]) == [("warning", "time", "time", 40)]
    assert "the newest by 3600 s" in ahead.text


def test_unreadable_times_and_nameless_entities(tmp_path: Path) -> None:
    rows = _rows()
    rows[4][1], rows[7][0] = "yesterday", ""
    assert _found(_check(tmp_path, rows)) == [("error", "time", "time", 1), ("error", "not-a-number", "unit", 1)]


def test_no_file_at_all(tmp_path: Path) -> None:
    (finding,) = contract.check(_task(), DataLocation(path=tmp_path / "none.csv"))
    assert _found([finding]) == [("error", "data-missing", "", 1)]


@pytest.mark.parametrize("name", ["pump", "ward"])
def test_generated_data_meets_its_own_contract(name: str) -> None:
    findings = contract.check(load_task(name), DataLocation(site=0, oldest_s=60), now=NOW)
    assert contract.codes(findings) == ()
