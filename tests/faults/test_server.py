"""The server restarted, killed and interrupted: nobody is left behind, and the agents find it again by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import leftovers
from tests.e2e.federation import end
from tests.e2e.toy_federation import LONGEST_S, Toys

INTERRUPTED = 130


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toys]:
    """Two sites online."""
    with Toys(tmp_path_factory.mktemp("pair")) as running:
        for name in ("anna", "bert"):
            running.site(name)
        running.wait_online("anna", "bert")
        yield running


def test_agents_find_a_server_that_was_restarted_while_they_were_idle(pair: Toys) -> None:
    agents = {name: agent.pid for name, agent in pair.agents.items()}
    assert end(pair.server) == 0
    assert leftovers.after(pair.home) == []
    pair.start()
    pair.wait_online("anna", "bert")
    assert {name: agent.pid for name, agent in pair.agents.items() if agent.poll() is None} == agents


def test_kill_minus_nine_of_the_server_mid_run_leaves_no_child(pair: Toys) -> None:
    run = pair.launch("protection=sealed", "rounds.count=50", "local.steps=1500")
    watch = pair.watch(run)
    watch.until(lambda event: event["kind"] == "asked" and event["phase"] == "train")
    running = {process.pid for process in leftovers.below(pair.home)}
    assert pair.info["superexec_pid"] in running
    assert len(running) >= 4  # launcher, link, superexec, and the run's driver
    os.kill(pair.server.pid, signal.SIGKILL)
    pair.server.wait()
    end(watch.process)
    assert leftovers.after(pair.home) == []
    assert all(agent.poll() is None for agent in pair.agents.values())

    # A killed server leaves its server.json: the next one is not confused by it.
    pair.start()
    pair.wait_online("anna", "bert")


def test_ctrl_c_at_launch_an_agent_and_the_server(pair: Toys) -> None:
    task = pair.directory / "toy.yaml"
    launched = pair.popen(
        "launch", f"task_file={task}", "release=none", "privacy=none", "protection=sealed", "rounds.count=1000",
        "local.steps=1500",
        home=pair.home,
    )  # fmt: skip
    assert launched.stdout is not None
    assert "accepted the plan" in launched.stdout.readline(), pair.log("server", "anna")
    assert _ctrl_c(launched) == INTERRUPTED
    assert "the run goes on" in (pair.home / "launch.stderr").read_text()

    leftovers.wait_busy(pair.site_home("anna"))
    agent = pair.agents.pop("anna")
    assert _ctrl_c(agent) == INTERRUPTED, pair.log("anna")
    assert leftovers.after(pair.site_home("anna")) == []
    assert "Traceback" not in (pair.site_home("anna") / "up.stderr").read_text()

    assert pair.server is not None
    assert leftovers.drivers(pair.home)  # the run is still going
    assert _ctrl_c(pair.server) in (0, INTERRUPTED), pair.log("server")
    assert leftovers.after(pair.home) == []
    assert not (pair.state / "server.json").exists()
    pair.server = None


def test_ctrl_c_at_an_agent_that_cannot_reach_its_server(pair: Toys) -> None:
    agent = pair.agents.pop("bert")
    assert _ctrl_c(agent) == INTERRUPTED, pair.log("bert")
    assert leftovers.after(pair.site_home("bert")) == []


@pytest.mark.slow
def test_a_run_whose_driver_was_killed_is_stopped_by_hand_and_the_next_one_runs(tmp_path: Path) -> None:
    with Toys(tmp_path) as running:
        for name in ("anna", "bert"):
            running.site(name)
        running.wait_online("anna", "bert")
        run = running.launch("protection=sealed", "rounds.count=50", "local.steps=1500")
        watch = running.watch(run)
        watch.until(lambda event: event["kind"] == "asked" and event["phase"] == "train")
        assert running.server is not None
        os.kill(running.server.pid, signal.SIGKILL)
        running.server.wait()
        end(watch.process)
        assert leftovers.after(running.home) == []
        running.start()
        running.wait_online("anna", "bert")
        stopped = running.cli("runs", "stop", run, "--json")
        assert stopped.code == 0, stopped.stderr
        assert running.result(run)["outcome"] == "stopped"
        assert not (running.state / "runs" / run / "run.key").exists()
        after = running.launch("protection=sealed", "rounds.count=1")
        assert running.watch(after).finished()["outcome"] == "completed"


def _ctrl_c(process: subprocess.Popen[str]) -> int:
    """What a terminal does: SIGINT to the whole foreground group."""
    os.killpg(process.pid, signal.SIGINT)
    return process.wait(timeout=LONGEST_S)
