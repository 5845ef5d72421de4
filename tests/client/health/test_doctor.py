"""The whole examination: hosts that are no site, broken state, data that cannot be looked at, disks that are full."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer

from fedsite.client.commands import doctor as command
from fedsite.client.health import doctor_host
from fedsite.client.health.doctor import Doctor
from fedsite.protocol.errors import ExitCode
from tests.cli.test_site_commands import fedsite, join_on_disk


def test_a_host_that_never_joined_is_told_so_and_nothing_is_made(tmp_path: Path) -> None:
    done = fedsite(tmp_path, "doctor", "--json")
    value = json.loads(done.stdout)
    assert (done.returncode, value["exit_code"], value["ok"]) == (2, 2, False)
    assert (value["network"], [item["code"] for item in value["findings"]]) == (None, ["identity"])
    assert "fedsite join" in value["findings"][0]["remedy"]
    assert done.stderr == ""  # what is under way is for a terminal alone
    assert not (tmp_path / "site").exists()
    shown = fedsite(tmp_path, "doctor")
    assert "NOT WELL" in shown.stdout
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80


def test_what_is_under_way_is_shown_on_a_terminal_and_gone_with_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSITE_HOME", str(tmp_path))
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    with pytest.raises(typer.Exit):
        command.doctor(json=True)
    shown = terminal.getvalue().split("\r\x1b[K")
    assert (shown[:3], shown[-1]) == (["", "settings …", "identity …"], "")


def test_a_server_that_is_down_hides_what_follows_from_it(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    (directory / "site.yaml").write_text("policy: {epsilon_mx: 3}\n")
    value = json.loads(fedsite(tmp_path, "doctor", "--json").stdout)
    # localhost:9 is nobody's.
    assert [item["code"] for item in value["findings"]] == ["settings", "connect", "agent"]
    assert value["exit_code"] == 2
    assert [step["name"] for step in value["steps"]][-1] == "connection"


def test_contracts_are_judged_apart_and_a_task_that_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSITE_HOME", str(tmp_path))
    join_on_disk(tmp_path)
    text, finding = doctor_host.contract("no-such-task")
    assert finding is not None
    assert (finding.code, finding.severity, finding.exit_code) == ("contract", "error", ExitCode.USAGE)
    assert "no-such-task" in finding.text
    text, finding = doctor_host.contract("pump", seconds=0.01)
    assert finding is not None
    assert (text, finding.severity) == ("not finished", "warning")


def test_a_disk_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_host.writable(tmp_path) is None
    assert list(tmp_path.iterdir()) == []

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr("fedsite.protocol.storage.os.fsync", full)
    found = doctor_host.writable(tmp_path)
    assert found is not None
    assert (found.code, found.exit_code) == ("disk", ExitCode.STORAGE)
    assert list(tmp_path.iterdir()) == []


def test_every_step_is_told_and_the_contract_is_asked_for_each_named_task(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    (directory / "site.yaml").write_text("policy: {tasks: [pump, ward]}\n")
    said: list[str] = []
    asked: list[str] = []

    def contract(task: str) -> tuple[str, None]:
        asked.append(task)
        return "ok", None

    Doctor(directory, say=said.append, contract=contract).examine()
    assert asked == ["pump", "ward"]
    assert said[:6] == ["settings …", "identity …", "disk …", "memory …", "data of pump …", "data of ward …"]
