"""The site's commands: exit codes, JSON, no traceback, nothing half-written, and a start without torch."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.cli import run
from fedsite.protocol import documents
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What one command line did."""

    returncode: int
    stdout: str
    stderr: str


def fedsite(home: Path, *arguments: str) -> Done:
    """Run a command line in this process, with a state directory of its own and nothing on stdin."""
    stdout, stderr, stdin = io.StringIO(), io.StringIO(), sys.stdin
    kept = dict(os.environ)
    for name in [name for name in kept if name.startswith("FEDSITE_") and name != "FEDSITE_DATA"]:
        del os.environ[name]
    os.environ["FEDSITE_HOME"] = str(home)
    sys.stdin = io.StringIO("")
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = run(arguments)
    finally:
        sys.stdin = stdin
        os.environ.clear()
        os.environ.update(kept)
    return Done(returncode=code, stdout=stdout.getvalue(), stderr=stderr.getvalue())


def join_on_disk(home: Path) -> Path:
    """A site directory as `fedsite join` leaves it, of a federation that nobody runs."""
    directory = home / "site"
    directory.mkdir(parents=True, mode=0o700)
    centre, site = SigningKey.generate(), SigningKey.generate()
    federation = Federation(
        id=centre.public.id,
        name="test",
        address="localhost:9",
        ca_certificate="-----BEGIN CERTIFICATE-----\n",
        signing_key=centre.public.text,
    )
    (directory / "federation.json").write_bytes(federation.encode())
    site.save(directory / "identity.key")
    (directory / "site.json").write_bytes(
        documents.canonical({"site_id": site.public.id, "name": "alpha", "expires": "2036-01-01T00:00:00Z"})
    )
    return directory


def test_help_and_parsing_import_neither_torch_nor_flower() -> None:
    probe = (
        "import sys; from fedsite.client.cli import run; run(['--help']); run(['up', 'no=1']); run(['stauts']);"
        "heavy = {'torch', 'flwr', 'polars', 'onnxruntime', 'opacus', 'hydra'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for panel in ("Site operator", "Researcher"):
        assert panel in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["stauts"], 2, ["stauts", "did you mean status?", "fedsite --help"]),
        (["data", "chek"], 2, ["chek", "did you mean check?"]),
        (["status", "--jsno"], 2, ["--jsno", "fedsite status --help"]),
        (["status"], 2, ["has not joined", "fedsite join"]),
        (["up"], 2, ["has not joined", "fedsite join"]),
        (["up", "data.pth=x"], 2, ["data.pth", "did you mean path?"]),
        (["up", "policy"], 2, ["key=value"]),
        (["model", "status"], 2, ["has not joined"]),
        (["score"], 2, ["has not joined"]),
        (["join"], 2, ["no token", "file:PATH"]),
        (["join", "file:/nonexistent/token"], 2, ["/nonexistent/token", "No such file"]),
        (["join", "-"], 2, ["the token is empty"]),
        (["data", "check"], 2, ["which task?", "pump"]),
        (["data", "check", "pmup"], 2, ["pmup", "pump"]),
        (["data", "check", "task=pmup"], 2, ["pmup", "did you mean pump?"]),
        (["data", "check", "task_file=/nonexistent.yaml", "data.path=x"], 2, ["/nonexistent.yaml", "No such file"]),
        (["report", "/nonexistent.json"], 2, ["report /nonexistent.json", "No such file", "fedsite demo"]),
        (["report", __file__], 2, [f"report {__file__}", "not a JSON document"]),
        (["data", "check", "pump", "data.path=/nonexistent.csv"], 3, ["/nonexistent.csv"]),
    ],
)
def test_bad_input_gets_a_code_and_no_traceback(
    tmp_path: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    done = fedsite(tmp_path, *arguments)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said
    for word in words:
        assert word in said
    assert not (tmp_path / "site").exists()


def test_an_error_is_one_json_line_when_asked(tmp_path: Path) -> None:
    done = fedsite(tmp_path, "status", "--json")
    assert done.stdout == ""
    error = json.loads(done.stderr)
    assert error["schema"] == "fedsite.error/1"
    assert (error["exit_code"], done.returncode) == (2, 2)
    assert {"error", "found", "allowed", "next"} <= set(error)


def test_a_forged_token_is_refused_with_nothing_written(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("not-a-token\n")
    done = fedsite(tmp_path / "home", "join", f"file:{token}")
    assert done.returncode in (2, 4), done.stderr
    assert "Traceback" not in done.stderr
    bare = fedsite(tmp_path / "home", "join", "not-a-token")
    assert "shell's history" in bare.stderr
    assert not (tmp_path / "home" / "site" / "identity.key").exists()


def test_data_check_counts_and_says_what_is_wrong(tmp_path: Path) -> None:
    good = fedsite(tmp_path, "data", "check", "pump", "--json")
    value = json.loads(good.stdout)
    assert (good.returncode, value["schema"], value["ok"]) == (0, "fedsite.data-check/1", True)
    assert value["tasks"][0]["windows"] > 50
    table = tmp_path / "pumps.csv"
    table.write_text("machine,time,vibration\nm1,0,1\n")
    bad = fedsite(tmp_path, "data", "check", "pump", f"data.path={table}", "--json")
    found = json.loads(bad.stdout)
    assert (bad.returncode, found["ok"]) == (3, False)
    assert str(table) in found["tasks"][0]["findings"][0]["found"]
    text = fedsite(tmp_path, "data", "check", "pump", f"data.path={table}")
    assert "not ok" in text.stdout


def test_status_works_without_an_agent_and_says_so(tmp_path: Path) -> None:
    join_on_disk(tmp_path)
    done = fedsite(tmp_path, "status", "--json")
    value = json.loads(done.stdout)
    assert (done.returncode, value["schema"], value["agent"]["state"]) == (0, "fedsite.status/2", "stopped")
    assert value["certificate"]["days"] > 1000
    assert [finding["code"] for finding in value["findings"]] == ["agent"]
    assert "fedsite up" in fedsite(tmp_path, "status").stdout


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    (directory / "budget.db").write_bytes(b"x" * 5000)
    value = json.loads(fedsite(tmp_path, "status", "--json").stdout)
    assert "ledger" in [finding["code"] for finding in value["findings"]]
    done = fedsite(tmp_path, "privacy")
    assert done.returncode == 7
    assert "budget.db" in done.stderr
    (directory / "identity.key").chmod(0o644)
    assert fedsite(tmp_path, "status").returncode == 4
    (directory / "federation.json").write_text("{")
    broken = fedsite(tmp_path, "status")
    assert broken.returncode == 2
    assert "federation.json" in broken.stderr


def runs_in_status(home: Path) -> tuple[int, int]:
    """Open and finished runs, as `fedsite status` counts them."""
    found = json.loads(fedsite(home, "status", "--json").stdout)["budget"]
    return found["open"], found["finished"]


def test_a_run_the_server_never_ended_can_be_closed(tmp_path: Path) -> None:
    from fedsite.client.ledger.budget import Budget
    from fedsite.privacy.accounting import Spend

    directory = join_on_disk(tmp_path)
    run_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    spend = Spend(noise_multiplier=20.0, sampling_rate=1.0, steps=4)
    budget = Budget(directory / "budget.db")
    for unit in ("window", "site"):
        budget.reserve(
            run_id=run_id, unit=unit, source="/x.csv", task="pump", plan_hash="p", spends=[spend], epsilon=1.0,
            delta=1e-5, now="2026-03-01T12:00:00Z",
        )  # fmt: skip
    budget.close()
    before = json.loads(fedsite(tmp_path, "privacy", "--json").stdout)
    assert before["runs"][0]["state"] == "open"
    assert runs_in_status(tmp_path) == (1, 0)  # of two units, and one run
    sums, windows = before["sources"]
    assert (sums["unit"], windows["unit"]) == ("site", "window")
    assert sums["epsilon"] > windows["epsilon"] > 0  # the same spends, by the bound for sums and by the tighter one
    wrong = fedsite(tmp_path, "privacy", "--close", run_id[:-1] + "W")
    assert (wrong.returncode, f"did you mean {run_id}?" in wrong.stderr) == (2, True)
    budget = Budget(directory / "budget.db")
    other = run_id[:-2] + "ZZ"
    budget.reserve(
        run_id=other, unit="window", source="/y.csv", task="pump", plan_hash="p", spends=[spend], epsilon=1.0,
        delta=1e-5, now="2026-03-01T12:00:00Z",
    )  # fmt: skip
    budget.close()
    for word, said in ((run_id[:10], "2 open runs begin with"), ("", "not in the budget"), ("latest", other)):
        refused = fedsite(tmp_path, "privacy", "--close", word)
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
    assert fedsite(tmp_path, "privacy", "--close", other[:-1].lower()).returncode == 0
    assert "closed already" in fedsite(tmp_path, "privacy", "--close", other).stderr
    after = json.loads(fedsite(tmp_path, "privacy", "--close", run_id[:10], "--json").stdout)
    assert [run["state"] for run in after["runs"]] == ["finished"] * 3
    assert runs_in_status(tmp_path) == (0, 2)
    assert [source["left"] for source in after["sources"]] == [after["epsilon_max"]] * 3


def test_model_commands_without_a_release(tmp_path: Path) -> None:
    join_on_disk(tmp_path)
    for arguments in (["model", "status"], ["model", "rollback"], ["score", "data.site=1"]):
        done = fedsite(tmp_path, *arguments)
        assert done.returncode == 2
        assert "release" in done.stderr


def test_two_agents_on_one_directory_are_refused(tmp_path: Path) -> None:
    import fcntl

    directory = join_on_disk(tmp_path)
    with (directory / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = fedsite(tmp_path, "up")
        assert done.returncode == 2
        assert "runs already" in done.stderr
        assert fedsite(tmp_path, "leave", "--yes").returncode == 2
    assert (directory / "site.json").exists()


def test_a_unit_for_systemd_has_the_bounds_of_this_sites_settings(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    (directory / "site.yaml").write_text("agent: {worker_memory: 1073741824}\npolicy: {cpu_threads: 3}\n")
    done = fedsite(tmp_path, "service", "--json")
    value = json.loads(done.stdout)
    assert (value["schema"], value["name"]) == ("fedsite.service/1", "fedsite-agent.service")
    assert "User=plant\nGroup=plant\n" in fedsite(tmp_path, "service", "--user", "plant").stdout
    for line in ("MemoryMax=1536M", "CPUQuota=400%", f"Environment=FEDSITE_HOME={tmp_path}", "User=fedsite"):
        assert line in value["unit"].splitlines()
    refused = fedsite(tmp_path, "service", "--user", "a b")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_joining_again_without_a_token_says_what_is_there(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    state = json.loads((directory / "site.json").read_bytes())
    (directory / "site.json").write_bytes(
        documents.canonical({**state, "schema": "fedsite.site-state/1", "node_id": "1"})
    )
    told = fedsite(tmp_path, "join", "--json")
    assert told.returncode == 0, told.stderr
    value = json.loads(told.stdout)
    assert (value["already"], value["name"]) == (True, "alpha")
    same = fedsite(tmp_path, "join", "--fingerprint", value["federation"]["fingerprint"])
    assert same.returncode == 0
    other = fedsite(tmp_path, "join", "--fingerprint", "ab" * 32)
    assert other.returncode == 4
    assert "not the one you were told" in other.stderr


def test_leave_deletes_keys_and_keeps_the_budget(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    (directory / "budget.db").write_bytes(b"")
    unasked = fedsite(tmp_path, "leave")
    assert unasked.returncode == 2
    assert "fedsite leave --yes" in unasked.stderr
    assert (directory / "identity.key").exists()
    (directory / "exchange").mkdir()
    (directory / "exchange" / "x.answer").write_bytes(b"")
    (directory / "joining.json").write_bytes(b"{}")
    done = fedsite(tmp_path, "leave", "--yes", "--json")
    assert json.loads(done.stdout) == {"schema": "fedsite.left/1", "left": True, "revoked": False}
    assert {path.name for path in directory.iterdir()} == {"budget.db", "audit", "agent.lock"}
    assert "revoke this site: fedsite sites revoke alpha" in done.stderr
    again = fedsite(tmp_path, "leave", "--yes", "--json")
    assert (again.returncode, json.loads(again.stdout)["left"]) == (0, False)


@pytest.mark.parametrize("at", ["site.json", "outbox", "node.key", "identity.key"])
def test_a_leave_that_was_interrupted_is_repeated(tmp_path: Path, monkeypatch: Any, at: str) -> None:
    directory = join_on_disk(tmp_path)
    site_id = json.loads((directory / "site.json").read_bytes())["site_id"]
    (directory / "outbox").mkdir()
    (directory / "node.key").write_bytes(b"")
    unlink, rmdir = os.unlink, os.rmdir

    def interrupted(path: Any, **more: Any) -> None:
        if str(path).endswith(at):
            raise KeyboardInterrupt
        (rmdir if str(path).endswith("outbox") else unlink)(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", interrupted)
        patch.setattr(os, "rmdir", interrupted)
        assert fedsite(tmp_path, "leave", "--yes").returncode == 130
    again = fedsite(tmp_path, "leave", "--yes")
    assert again.returncode == 0
    assert f"fedsite sites revoke {'alpha' if at == 'site.json' else site_id}" in again.stderr
    assert {path.name for path in directory.iterdir()} <= {"audit", "agent.lock"}


def test_a_home_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    token = tmp_path / "token"
    token.write_text("x")
    done = fedsite(tmp_path / "file", "up")
    assert done.returncode in (2, 9)
    assert "Traceback" not in done.stderr


def test_a_defect_of_ours_writes_its_traceback_to_a_private_file(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    from fedsite.protocol import output

    monkeypatch.setenv("FEDSITE_HOME", str(tmp_path))
    assert output.fail(ZeroDivisionError("oops"), as_json=False) == 1
    said = capsys.readouterr().err
    (log,) = (tmp_path / "logs").iterdir()
    assert str(log) in said
    assert "Traceback" not in said
    assert "ZeroDivisionError" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
