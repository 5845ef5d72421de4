"""Status, doctor and bug report of a site whose agent runs at a real server, and of one that was sent away."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.health.doctor import Doctor
from fedsite.protocol.errors import ExitCode
from tests.e2e.federation import command, end

OK, TRUST, UNREACHABLE = int(ExitCode.OK), int(ExitCode.TRUST), int(ExitCode.UNREACHABLE)


@pytest.fixture(scope="module")
def agent(federation: Any) -> Any:
    """The federation with alpha's agent running."""
    (federation.site_state("alpha") / "site.yaml").write_text("policy: {tasks: [pump]}\n")
    federation.start_agent("alpha")
    federation.wait_online("alpha")
    return federation


def test_a_site_that_is_well_is_examined_with_exit_0(agent: Any) -> None:
    done = agent.cli("doctor", "--json", home=agent.site_home("alpha"))
    assert done.code == OK, done.stdout + done.stderr
    value = done.value
    assert (value["schema"], value["ok"]) == ("fedsite.doctor/1", True)
    assert [item for item in value["findings"] if item["severity"] == "error"] == []
    names = [step["name"] for step in value["steps"]]
    assert names[-5:] == ["name", "connection", "certificate", "admission", "speed"]
    network = value["network"]
    assert network["tls"] == "TLSv1.3"
    assert min(network["upload_bytes_s"], network["download_bytes_s"], network["payload_bytes"]) > 0
    assert abs(network["clock_ahead_s"]) < 2
    assert done.stderr == ""
    assert "ok, " in next(step["text"] for step in value["steps"] if step["name"] == "data of pump")
    status = agent.cli("status", "--json", home=agent.site_home("alpha")).value
    assert status["data"][0]["checked"] is not None
    assert status["agent"]["state"] == "idle"


def test_a_watch_tells_what_changes_and_ends_with_ctrl_c(agent: Any) -> None:
    home = agent.site_home("alpha")
    watching = agent.start_process(
        command("status", "--watch", "--json"), home, home / "watch.stderr", stdout=subprocess.PIPE
    )
    try:
        first = json.loads(watching.stdout.readline())
        assert (first["schema"], first["pause"]) == ("fedsite.status/2", None)
        assert agent.cli("pause", "2h", home=home).code == OK
        until = time.monotonic() + 60
        while time.monotonic() < until:
            told = json.loads(watching.stdout.readline())
            if told["pause"] is not None:
                break
        assert "paused" in [finding["code"] for finding in told["findings"]]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=30) == int(ExitCode.INTERRUPTED)
    finally:
        end(watching)
        agent.cli("resume", home=home)


def test_the_report_of_a_living_site_holds_no_name_and_no_address(agent: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.tar.gz"
    done = agent.cli("bugreport", str(path), home=agent.site_home("alpha"))
    assert done.code == OK, done.stderr
    assert "tar -xzOf" in done.stdout
    shown = subprocess.run(["tar", "-xzOf", str(path)], capture_output=True, text=True, check=True).stdout
    for secret in ("alpha", "127.0.0.1", str(agent.port), "BEGIN", str(agent.directory)):
        assert secret not in shown
    assert '"agent": "idle"' in shown


def test_a_site_that_was_revoked_is_told_by_its_server(federation: Any, tmp_path: Path) -> None:
    home = tmp_path / "gone"
    joined = federation.cli("join", "-", "--name", "gone", home=home, stdin=federation.token() + "\n")
    assert joined.code == OK, joined.stderr
    assert federation.cli("sites", "revoke", "gone").code == OK
    value = Doctor(home / "site").examine()
    accepted = next(item for item in value["findings"] if item["code"] == "accepted")
    assert accepted["severity"] == "error"
    assert value["exit_code"] == TRUST
    assert [step["name"] for step in value["steps"] if not step["ok"]] == ["admission"]


def test_a_server_that_is_gone_is_found_and_what_follows_is_not_told(agent: Any) -> None:
    end(agent.server)  # the last test of this module
    done = agent.cli("doctor", "--json", home=agent.site_home("alpha"))
    assert done.code == UNREACHABLE
    assert [item["code"] for item in done.value["findings"] if item["severity"] == "error"] == ["connect"]
    shown = agent.cli("doctor", home=agent.site_home("beta"))
    assert "NOT WELL: no connection" in shown.stdout
    assert "error        no agent runs" in shown.stdout
