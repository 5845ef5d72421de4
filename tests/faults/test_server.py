"""The server killed or restarted: nobody is left behind, and the agents find it again by themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import leftovers
from tests.e2e.federation import end
from tests.e2e.toy_federation import Toys


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
    run = pair.launch("rounds.count=50", "local.steps=1500")
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
    stopped = pair.cli("runs", "stop", run, "--json")
    assert stopped.code == 0, stopped.stderr
    assert pair.result(run)["outcome"] == "stopped"
    assert not (Path(pair.state) / "runs" / run / "run.key").exists()
    after = pair.launch("rounds.count=1")
    assert pair.watch(after).finished()["outcome"] == "completed"
