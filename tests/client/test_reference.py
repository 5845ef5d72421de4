"""The reference of a task: written whole, read strictly, the owner's alone."""

from __future__ import annotations

import contextlib
import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsite.client import reference
from fedsite.protocol.errors import DocumentError, FedsiteError
from fedsite.telemetry.drift import BINS, OUTSIDE, Histogram, Summary
from fedsite.telemetry.task import Task, load_task

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def task() -> Task:
    return load_task("pump")


def _summary() -> Summary:
    counts = np.arange(BINS + OUTSIDE)
    channel = Histogram(unit="bar", minimum=0.0, maximum=10.5, counts=counts)
    return Summary(rows=7, until=1.7e9, channels={"pressure": channel}, labels={"healthy": 5})


def test_kept_and_read_again(tmp_path: Path, task: Task) -> None:
    assert reference.load(tmp_path, task) is None
    reference.keep(tmp_path, task, _summary(), NOW)
    found = reference.load(tmp_path, task)
    assert found is not None
    assert found.taken == "2026-03-01T12:00:00Z"
    assert (found.summary.rows, found.summary.until, found.summary.labels) == (7, 1.7e9, {"healthy": 5})
    assert found.summary.channels["pressure"].counts.tolist() == list(range(BINS + OUTSIDE))
    path = tmp_path / "contract" / "pump.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_largest_task_has_a_small_file(tmp_path: Path) -> None:
    task = load_task("digits")
    full = Histogram(unit="1", minimum=0.0, maximum=16.0, counts=np.full(BINS + OUTSIDE, 10_000_000))
    summary = Summary(rows=7, until=None, channels={f"p{number}": full for number in range(1024)})
    reference.keep(tmp_path, task, summary, NOW)
    assert (tmp_path / "contract" / "digits.json").stat().st_size < 4 << 20
    assert reference.load(tmp_path, task) is not None


def test_a_long_name_is_a_short_file(tmp_path: Path, task: Task) -> None:
    from dataclasses import replace

    long = replace(task, name="ü" * 300)
    reference.keep(tmp_path, long, _summary(), NOW)
    assert reference.load(tmp_path, long) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "fedsite.contract/2"},
        {"taken": "yesterday"},
        {"rows": -1},
        {"rows": True},
        {"until": "x"},
        {"labels": []},
        {"labels": {"a": 1.5}},
        {"channels": 3},
        {"channels": {"a": {"unit": "1", "minimum": 0, "maximum": 1, "counts": [1, 2]}}},
        {"channels": {"a": {"unit": "1", "minimum": None, "maximum": 1, "counts": [0] * (BINS + OUTSIDE)}}},
    ],
)
def test_a_wrong_value_is_refused_with_the_way_out(tmp_path: Path, task: Task, change: dict[str, Any]) -> None:
    reference.keep(tmp_path, task, _summary(), NOW)
    path = tmp_path / "contract" / "pump.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DocumentError, match=r"pump\.json cannot be read") as caught:
        reference.load(tmp_path, task)
    assert "fedsite data check pump --accept" in caught.value.next_step


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.integers(0, 4000), st.binary(max_size=6), st.booleans())
def test_damage_anywhere_is_read_or_refused_by_name(tmp_path: Path, at: int, junk: bytes, cut: bool) -> None:
    task = load_task("pump")
    reference.keep(tmp_path, task, _summary(), NOW)
    path = tmp_path / "contract" / "pump.json"
    data = path.read_bytes()
    path.write_bytes(data[:at] + junk if cut else data[:at] + junk + data[at + len(junk) :])
    with contextlib.suppress(FedsiteError):
        assert reference.load(tmp_path, task) is not None
