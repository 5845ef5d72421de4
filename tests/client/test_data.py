"""What the budget charges: the data itself, whatever a plan's task calls it."""

from __future__ import annotations

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
