"""Ctrl-C in the middle of the demo: its documented exit code, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fedsite.server.runs.journal import Reader
from tests.e2e import leftovers
from tests.e2e.federation import command, end
from tests.e2e.toy_federation import LONGEST_S
from tests.lifeline import lifeline

INTERRUPTED = 130


def _ctrl_c(process: subprocess.Popen[str]) -> int:
    """What a terminal does: SIGINT to the whole foreground group."""
    os.killpg(process.pid, signal.SIGINT)
    return process.wait(timeout=LONGEST_S)


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_the_demo(tmp_path: Path) -> None:
    out = tmp_path / "out"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FEDSITE_HOME": str(tmp_path / "home")}
    with (tmp_path / "demo.log").open("w") as log:
        demo = subprocess.Popen(
            command("demo", f"out={out}", "privacy=none", "protection=sealed", "rounds.count=500", "sites=2"),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
            preexec_fn=lifeline(),
        )
    try:
        _until_round(out, demo)
        assert _ctrl_c(demo) == INTERRUPTED, (tmp_path / "demo.log").read_text()
    finally:
        if demo.poll() is None:
            end(demo)
    assert leftovers.after(tmp_path) == []
    assert "Traceback" not in (tmp_path / "demo.log").read_text()
    assert not (out / "report.json").exists()


def _until_round(out: Path, demo: subprocess.Popen[str]) -> None:
    """Wait until the demo's run has asked for the second round."""
    until = time.monotonic() + 2 * LONGEST_S
    while time.monotonic() < until and demo.poll() is None:
        for plan in out.glob("state/central/server/runs/*/plan.json"):  # written last: its journal is whole
            events = Reader(plan.with_name("journal.db")).events()
            if any(event["kind"] == "asked" and event["round"] >= 2 for event in events):
                return
        time.sleep(0.1)
    raise AssertionError(f"the demo did not get to its second round (exit {demo.poll()})")
