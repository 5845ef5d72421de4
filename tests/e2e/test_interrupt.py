"""Ctrl-C in the middle of a run: each command ends with its documented code and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsite.server.journal import Reader
from tests.e2e import leftovers
from tests.e2e.federation import command, end
from tests.e2e.toy_federation import LONGEST_S, Toys

INTERRUPTED = 130


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toys]:
    """Two sites in the middle of a long run."""
    with Toys(tmp_path_factory.mktemp("busy")) as running:
        for name in ("anna", "bert"):
            running.site(name)
        running.wait_online("anna", "bert")
        yield running


def _ctrl_c(process: subprocess.Popen[str]) -> int:
    """What a terminal does: SIGINT to the whole foreground group."""
    os.killpg(process.pid, signal.SIGINT)
    return process.wait(timeout=60)


def test_ctrl_c_at_launch_an_agent_and_the_server(busy: Toys) -> None:
    task = busy.directory / "toy.yaml"
    launched = busy.popen(
        "launch", f"task_file={task}", "release=none", "rounds.count=1000", "local.steps=1500", home=busy.home
    )
    leftovers.wait_busy(busy.site_home("anna"), within_s=LONGEST_S)
    assert _ctrl_c(launched) == INTERRUPTED
    assert "the run goes on" in (busy.home / "launch.stderr").read_text()

    leftovers.wait_busy(busy.site_home("anna"))
    agent = busy.agents.pop("anna")
    assert _ctrl_c(agent) == INTERRUPTED, busy.log("anna")
    assert leftovers.after(busy.site_home("anna")) == []
    assert "Traceback" not in (busy.site_home("anna") / "up.stderr").read_text()

    assert busy.server is not None
    drivers = [process for process in leftovers.below(busy.home) if "serverapp" in " ".join(process.cmdline())]
    assert drivers  # the run is still going
    assert _ctrl_c(busy.server) in (0, INTERRUPTED), busy.log("server")
    assert leftovers.after(busy.home) == []
    assert not (busy.state / "server.json").exists()
    busy.server = None


def test_ctrl_c_at_an_agent_that_cannot_reach_its_server(busy: Toys) -> None:
    agent = busy.agents.pop("bert")
    assert _ctrl_c(agent) == INTERRUPTED, busy.log("bert")
    assert leftovers.after(busy.site_home("bert")) == []


def test_ctrl_c_in_the_middle_of_the_demo(tmp_path: Path) -> None:
    out = tmp_path / "out"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FEDSITE_HOME": str(tmp_path / "home")}
    with (tmp_path / "demo.log").open("w") as log:
        demo = subprocess.Popen(
            command("demo", f"out={out}", "privacy=none", "rounds.count=500", "sites=2"),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
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
        for journal in out.glob("state/central/server/runs/*/journal.db"):
            if any(event["kind"] == "asked" and event["round"] >= 2 for event in Reader(journal).events()):
                return
        time.sleep(0.1)
    raise AssertionError(f"the demo did not get to its second round (exit {demo.poll()})")
