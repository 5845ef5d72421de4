"""What the budget charges: the data itself, whatever a plan's task calls it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fedsite.client import data
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.task import Task, load_task, read_task


def task(**sections: Any) -> Task:
    return read_task({**load_task("pump").document, **sections})


def test_a_file_is_charged_under_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    found = {data.source_id(task(), DataLocation(path=tmp_path / name)) for name in ("real.csv", "link.csv")}
    assert found == {str(tmp_path / "real.csv")}


def test_joined_tables_are_charged_with_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pumps.csv").write_text("")
    events = [{"file": "alarms.csv", "time": "at", "kind": "what"}]
    assert data.source_id(task(events=events), DataLocation(path=tmp_path / "pumps.csv")) == str(tmp_path)
    # Generated readings with a table of the site's own are not free of its data.
    monkeypatch.setenv("FEDSITE_DATA", str(tmp_path))
    assert data.source_id(task(events=events), DataLocation()) == str(tmp_path)
    assert data.source_id(task(), DataLocation()) == "synthetic pump"


def test_every_file_a_task_reads_changes_the_key(tmp_path: Path) -> None:
    joined = task(
        context=[{"file": "load.csv", "columns": ["flow"]}],
        events=[{"file": "alarms", "time": "at", "since": "current"}],
    )
    folder, where = tmp_path / "readings", DataLocation(path=tmp_path / "readings")
    (folder / "alarms").mkdir(parents=True)
    keys = [data.key(joined, where)]
    for name in ("2024.csv", "load.csv", "alarms/january.csv", "load.csv"):
        with (folder / name).open("a") as file:
            file.write("machine,load\n")
        keys.append(data.key(joined, where))
    assert len(set(keys)) == len(keys)
    assert data.key(joined, where) == keys[-1]
    old = (folder / "load.csv").stat()
    (folder / "new.csv").write_text((folder / "load.csv").read_text().upper())
    os.utime(folder / "new.csv", ns=(old.st_atime_ns, old.st_mtime_ns))
    (folder / "new.csv").replace(folder / "load.csv")
    assert data.key(joined, where) != keys[-1]
    (folder / "load.csv").unlink()
    assert data.key(joined, where) not in keys


def test_tables_beside_a_single_file_change_the_key(tmp_path: Path) -> None:
    joined, where = task(context=[{"file": "load.csv", "columns": ["flow"]}]), DataLocation(path=tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("x\n")
    before = data.key(joined, where)
    (tmp_path / "load.csv").write_text("machine,load\n")
    assert data.key(joined, where) != before
    (tmp_path / "notes.csv").write_text("unread\n")
    assert len(data.stamp(joined, where)) == 2
