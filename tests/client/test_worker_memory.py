"""What a round of a shipped task takes, and that it is given back: the worker that took it has ended."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fedsite.telemetry.errors import TelemetryError
from fedsite.telemetry.location import data_root
from fedsite.telemetry.task import load_task
from tests import worker_rounds
from tests.benchmarks.agent_memory import ROUND_MB


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc (Linux): the kernel's own count of a process")
@pytest.mark.parametrize("name", ["pump", "ward", "air_forecast", "server_anomaly"])
def test_a_round_stays_below_its_bound_and_gives_its_memory_back(name: str, tmp_path: Path) -> None:
    task = load_task(name)
    if task.data.file is not None:
        try:
            found = (data_root() / task.data.file).exists()
        except TelemetryError:
            found = False
        if not found:
            pytest.skip(f"{task.data.file} is missing: docs/tasks.md says where it comes from (FEDSITE_DATA)")
    taken = worker_rounds.one_round(name, tmp_path, *worker_rounds.PRIVATE)
    assert taken.peak < ROUND_MB
    assert taken.ended
