"""A site on the stock `flower-supernode` in place of `fedsite up`, beside one with an agent: one whole private run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import leftovers
from tests.e2e.federation import end, free_port
from tests.e2e.toy_federation import LONGEST_S, Toys
from tests.lifeline import lifeline

pytestmark = pytest.mark.slow

EPSILON = 8.0


@contextmanager
def _supernode(toys: Toys, name: str) -> Iterator[subprocess.Popen[str]]:
    """As docs/site-host.md says to start it."""
    home = toys.site_home(name)
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "FEDSITE_HOME": str(home),
        "FLWR_HOME": str(home / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    command = [str(programs / "flower-supernode"), "--superlink", f"127.0.0.1:{toys.port}"]
    command += ["--root-certificates", str(toys.site_state(name) / "ca.crt")]
    command += ["--auth-supernode-private-key", str(toys.site_state(name) / "node.key"), "--port", str(free_port())]
    with (home / "supernode.stderr").open("a") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lifeline(),
        )
    try:
        yield process
    finally:
        end(process)


def _own_runs(toys: Toys, name: str) -> list[dict[str, Any]]:
    return list(toys.cli("privacy", "--json", home=toys.site_home(name)).value["runs"])


def test_a_stock_supernode_takes_part_in_a_whole_private_run(tmp_path: Path) -> None:
    with Toys(tmp_path) as toys:
        toys.site("anna")
        toys.site("bert")
        home = toys.prepare_site("nora")

        with _supernode(toys, "nora") as unlabelled:  # a node key alone is not enough
            unlabelled.wait(timeout=LONGEST_S)  # its exit code says nothing
        assert "SuperNode ID" not in (home / "supernode.stderr").read_text()
        assert "public refused /v1/fleet/activate-node: no client certificate" in toys.log("server")

        labelled = toys.cli("sites", "label", "nora", "supernode=true")
        assert labelled.code == 0, labelled.stderr
        with _supernode(toys, "nora"):
            toys.wait_online("anna", "bert", "nora")
            launched = toys.cli(
                "launch",
                f"task_file={tmp_path / 'toy.yaml'}",
                "privacy=sample",
                f"privacy.epsilon={EPSILON:g}",
                "rounds.count=2",
                "--json",
                timeout_s=2 * LONGEST_S,
            )
            assert launched.code == 0, launched.stderr + toys.log("server", "nora")
            # The server does not wait long for the last answer: the site ends the run by itself a moment later.
            until = time.monotonic() + LONGEST_S
            while [own["state"] for own in _own_runs(toys, "nora")] != ["finished"] and time.monotonic() < until:
                time.sleep(0.2)
        assert leftovers.after(home) == []

        run = toys.cli("runs", "show", "latest", "--json").value
        result = run["result"]
        assert result["outcome"] == "completed"
        nora = next(site for site in result["sites"] if site["name"] == "nora")
        assert [found["outcome"] for found in nora["rounds"]] == ["ok", "ok"]
        assert nora["installed"] == "ok"
        (own,) = _own_runs(toys, "nora")
        assert (own["run_id"], own["state"]) == (run["run_id"], "finished")
        assert 0 < own["epsilon_spent"] <= nora["epsilon"] * (1 + 1e-9)
        scored = toys.cli("score", "--json", home=home)
        assert scored.code == 0, scored.stderr
        assert scored.value["version"] == result["release"]["version"]
