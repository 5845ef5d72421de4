"""One private run from launch to scores, through the public commands: a real server and three real agents."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import leftovers
from tests.e2e.federation import Federation

SITES = ("north", "south", "west")
ROUNDS = 2
EPSILON = 8.0
INTEGRITY = 8


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Federation, dict[str, Any]]]:
    """A federation after one completed run, its agents still up, and what `runs show --json` says."""
    with Federation(tmp_path_factory.mktemp("run")) as running:
        for number, name in enumerate(SITES):
            home = running.join_site(name)
            (home / "site" / "site.yaml").write_text(f"data: {{site: pump-{number}, seed: 1}}\n")
            running.start_agent(name)
        running.wait_online(*SITES)
        done = running.cli(
            "launch",
            "task=pump",
            "privacy=sample",
            f"privacy.epsilon={EPSILON:g}",
            f"rounds.count={ROUNDS}",
            "local.steps=1",
            timeout_s=240,
        )
        assert done.code == 0, done.stderr + running.log("server", *SITES)
        yield running, running.cli("runs", "show", "latest", "--json").value


def test_every_round_and_every_site_has_a_named_outcome(ran: tuple[Federation, dict[str, Any]]) -> None:
    result = ran[1]["result"]
    assert result["outcome"] == "completed"
    assert [found["outcome"] for found in result["rounds"]] == ["completed"] * ROUNDS
    assert [found["participants"] for found in result["rounds"]] == [3] * ROUNDS
    assert sorted(site["name"] for site in result["sites"]) == sorted(SITES)
    for site in result["sites"]:
        assert site["prepared"] == "ok"
        assert [found["outcome"] for found in site["rounds"]] == ["ok"] * ROUNDS


def test_each_site_paid_what_was_promised_and_its_own_ledger_agrees(ran: tuple[Federation, dict[str, Any]]) -> None:
    running, run = ran
    result = run["result"]
    assert result["privacy"]["unit"] == "entity"
    for site in result["sites"]:
        assert 0 < site["epsilon"] <= EPSILON
    own = running.cli("privacy", "--json", home=running.site_home("north"))
    assert own.code == 0, own.stderr
    text = json.dumps(own.value)
    assert run["run_id"] in text
    assert "windows" not in result["sites"][0]  # how much data a site has is private


def test_both_sides_tell_the_same_story_of_the_run(ran: tuple[Federation, dict[str, Any]]) -> None:
    running, run = ran
    server = running.home / "server" / "audit"
    sites = [running.site_home(name) / "site" / "audit" for name in SITES]
    done = running.cli("audit", "verify", *map(str, [server, *sites]), "--json")
    assert done.code == 0, done.stderr
    assert all(row["compared"] >= ROUNDS + 2 for row in done.value["logs"]), done.value
    lines = running.cli("audit", "show", str(server), "--run", run["run_id"], "--json").stdout.splitlines()
    told = [json.loads(line) for line in lines]
    sums = [entry["facts"] for entry in told if entry["kind"] == "sum" and entry["facts"]["outcome"] == "opened"]
    assert len(sums) == ROUNDS
    for site in sites:
        (own,) = [path.name for path in site.iterdir()]
        shown = running.cli("audit", "show", str(site), "--json", home=site.parent.parent).stdout.splitlines()
        facts = [json.loads(line)["facts"] for line in shown if json.loads(line)["kind"] == "masked"]
        assert [fact["sha256"] for fact in facts] == [found["masked"][own] for found in sums]
        assert [fact["roster_hash"] for fact in facts] == [found["roster_hash"] for found in sums]
        assert [fact["u2"]["hash"] for fact in facts] == [found["sets"]["u2"] for found in sums]


def test_the_server_learned_sums_and_no_single_update(ran: tuple[Federation, dict[str, Any]]) -> None:
    running, run = ran
    assert run["result"]["protection"] == "secagg"
    sums = run["result"]["secagg"]["sums"]
    purposes = [found["purpose"] for found in sums]
    assert purposes == ["train"] * ROUNDS  # at these sizes, noised statistics and histograms would say nothing
    assert {(found["outcome"], found["survivors"]) for found in sums} == {("opened", len(SITES))}
    events = [json.loads(line) for line in running.cli("runs", "watch", "latest", "--json").stdout.splitlines()]
    asked = {event["phase"] for event in events if event["kind"] == "asked"}
    assert asked >= {"share", "train", "unmask"}
    assert "advertise" not in asked  # keys rode ahead on what was sent before


def test_every_site_verified_and_installed_the_release(ran: tuple[Federation, dict[str, Any]]) -> None:
    running, run = ran
    release = run["result"]["release"]
    assert release["verified_sites"] == len(SITES)
    assert all(site["installed"] == "ok" for site in run["result"]["sites"])
    for name in SITES:
        status = running.cli("status", "--json", home=running.site_home(name)).value
        assert status["model"]["version"] == release["version"]
        assert status["model"]["verified"] is True
        assert status["agent"]["state"] in ("idle", "working")


def test_a_device_scores_where_torch_cannot_be_imported(ran: tuple[Federation, dict[str, Any]], tmp_path: Path) -> None:
    running, run = ran
    for name in ("torch", "opacus"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('{name} is not for devices')\n")
    device = Federation(running.directory, environment={"PYTHONPATH": str(tmp_path)})
    done = device.cli("score", "--json", home=running.site_home("south"))
    assert done.code == 0, done.stderr
    assert done.value["version"] == run["result"]["release"]["version"]
    assert done.value["part"] == "holdout"
    assert done.value["windows"] > 0
    assert 0 <= done.value["metric"]["value"] <= 1
    # The stub does stop who needs torch: the same environment cannot train.
    broken = device.cli("launch", "task=pump", "--plan")
    assert broken.code != 0


def test_the_run_s_key_is_gone_and_every_secret_is_its_owners_alone(ran: tuple[Federation, dict[str, Any]]) -> None:
    running, run = ran
    folder = running.state / "runs" / run["run_id"]
    assert (folder / "result.json").exists()
    assert not (folder / "run.key").exists()
    assert list((folder / "checkpoints").glob("round-*.safetensors"))
    for path in running.directory.rglob("*"):
        if path.suffix in (".key", ".secret"):
            assert path.stat().st_mode & 0o077 == 0, path


def test_no_process_holds_torch_but_the_workers(ran: tuple[Federation, dict[str, Any]]) -> None:
    running = ran[0]
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system has no /proc: run it on Linux")
    workers = {process.pid for process in leftovers.workers(running.directory)}
    for process in leftovers.below(running.directory):
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert ("libtorch" in maps) == (process.pid in workers), process.cmdline()


def test_a_tampered_model_is_never_scored(ran: tuple[Federation, dict[str, Any]], tmp_path: Path) -> None:
    running = ran[0]
    home = running.copy_site("west", tmp_path / "home")
    model = next(home.rglob("model.onnx"))
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    os.chmod(model, 0o600)
    model.write_bytes(bytes(data))
    done = running.cli("score", home=home)
    assert done.code == INTEGRITY, done.stdout + done.stderr
    assert "slots/" in done.stderr
    assert "SHA-256" in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr
    status = running.cli("status", "--json", home=home).value
    assert "model" in {finding["code"] for finding in status["findings"]}


def test_lists_and_events_are_json(ran: tuple[Federation, dict[str, Any]]) -> None:
    running, run = ran
    listed = running.cli("runs", "list", "--json").value["runs"]
    assert [item["run_id"] for item in listed] == [run["run_id"]]
    watched = running.cli("runs", "watch", run["run_id"], "--json")
    events = [json.loads(line) for line in watched.stdout.splitlines()]
    assert events[0]["kind"] == "launched"
    assert events[-1]["kind"] == "finished"
    assert events[-1]["outcome"] == "completed"
