"""`launch` and `runs` as a user sees them: values on stdout, talk on stderr, nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsite.protocol import documents, ids
from fedsite.protocol.errors import ConfigError, FedsiteError, UnreachableError
from fedsite.server.commands import launch as launch_command
from fedsite.server.commands import runs as runs_command
from fedsite.server.home import ServerHome
from fedsite.server.runs import ending
from fedsite.server.runs import folder as runs
from fedsite.server.runs.folder import Launch, RunDirectory
from fedsite.server.runs.journal import Reader
from tests.simulated_fleet import Play, SimulatedFleet


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServerHome:
    monkeypatch.setenv("FEDSITE_HOME", str(tmp_path))
    home = ServerHome.default()
    for folder in (home.path, home.runs):
        folder.mkdir(mode=0o700)
    fleet = SimulatedFleet()
    home.federation_file.write_bytes(fleet.federation.encode())
    Play(fleet=fleet, folder=home.runs).with_rounds(count=2).run()
    return home


@pytest.fixture
def unfinished(home: ServerHome) -> RunDirectory:
    play = Play(fleet=SimulatedFleet(), folder=home.runs)
    plan = play.plan()
    run = RunDirectory(home.runs / plan.run_id)
    run.create(plan, play.initial, Launch(trained=("b", "w")))
    run.offer(1)
    return run


def printed(capsys: pytest.CaptureFixture[str], act: Callable[[], None]) -> Any:
    """The one JSON value on stdout."""
    act()
    return json.loads(capsys.readouterr().out)


def test_list_and_show(home: ServerHome, capsys: pytest.CaptureFixture[str]) -> None:
    listed = printed(capsys, lambda: runs_command.list_runs(json=True))
    assert listed["schema"] == "fedsite.runs/1"
    (line,) = listed["runs"]
    assert (line["state"], line["round"], line["rounds"], line["task"]) == ("completed", 2, 2, "toy")
    shown = printed(capsys, lambda: runs_command.show("latest", json=True))
    assert shown["schema"] == "fedsite.run/1"
    assert [Path(path).name for path in shown["files"]["checkpoints"]] == [
        "round-0000.safetensors",
        "round-0001.safetensors",
        "round-0002.safetensors",
    ]
    assert shown["result"]["schema"] == "fedsite.result/1"
    assert Path(shown["files"]["plan"]).exists()
    runs_command.show("latest", json=False)
    runs_command.list_runs(json=False)
    assert "completed" in capsys.readouterr().out


def test_watch_streams_every_event(home: ServerHome, capsys: pytest.CaptureFixture[str]) -> None:
    runs_command.watch("latest", json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    assert (lines[0]["kind"], lines[-1]["kind"]) == ("launched", "finished")
    assert (lines[0]["privacy"], lines[0]["epsilon"], lines[0]["site_epsilon"]) == ("none", None, None)
    runs_command.watch("latest", json=False)
    text = capsys.readouterr().out
    assert "3 sites accepted the plan" in text
    assert "round 2: completed, 3 of 3 sites" in text


def test_a_failed_run_is_an_error_after_its_last_event(
    home: ServerHome, unfinished: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    ending.close(unfinished, "failed", "no disk")
    with pytest.raises(FedsiteError, match="failed: no disk"):
        runs_command.watch(unfinished.run_id, json=True)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["outcome"] == "failed"


def test_watch_does_not_wait_for_a_server_that_is_gone(
    home: ServerHome, unfinished: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_command, "CHECK_S", 0.05)
    with pytest.raises(UnreachableError, match="the server is not running"):
        runs_command.watch(unfinished.run_id, json=True)


def test_stop_ends_a_run_that_nobody_drives_and_repeats_itself(
    home: ServerHome, unfinished: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished.key_file.write_bytes(b"x")
    for _ in range(2):
        found = printed(capsys, lambda: runs_command.stop(unfinished.run_id, json=True))
        assert found["state"] == "stopped"
    assert not unfinished.key_file.exists()
    assert [event["kind"] for event in Reader(unfinished.journal_file).events()].count("finished") == 1


def test_runs_are_found_by_their_beginning(home: ServerHome) -> None:
    (run,) = runs.all_runs(home.runs)
    assert runs.find(home.runs, run.run_id[:12].lower()) == run
    with pytest.raises(ConfigError, match="no run nothing"):
        runs.find(home.runs, "nothing")


def test_a_half_written_run_is_no_run(home: ServerHome) -> None:
    half = RunDirectory(home.runs / ids.ulid())
    half.path.mkdir()
    (home.runs / "notes.txt").write_text("x")
    assert len(runs.all_runs(home.runs)) == 1
    with pytest.raises(ConfigError, match="no run"):
        half.plan()


def test_plan_prints_the_cost_and_writes_nothing(home: ServerHome, capsys: pytest.CaptureFixture[str]) -> None:
    before = len(runs.all_runs(home.runs))
    found = printed(
        capsys, lambda: launch_command.launch(["task=pump", "rounds.count=3"], plan=True, wait=False, json=True)
    )
    assert (found["schema"], found["rounds"]) == ("fedsite.forecast/1", 3)
    assert 7.9 < found["epsilon"] <= 8.0
    assert len(runs.all_runs(home.runs)) == before


def test_launch_without_a_server_starts_and_writes_nothing(home: ServerHome) -> None:
    before = len(runs.all_runs(home.runs))
    with pytest.raises(UnreachableError, match="not running"):
        launch_command.launch(["task=pump"], plan=False, wait=False, json=True)
    assert len(runs.all_runs(home.runs)) == before


def test_a_run_that_flower_does_not_take_has_a_result_that_says_so(
    home: ServerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        def start_run(self, run_id: str, epoch: int) -> str:
            raise UnreachableError("gone", next_step="x")

    from fedsite.server import settings
    from fedsite.server.plans import planning

    planned = planning.make(settings.compose(["task=pump"]), "0" * 32)
    run = RunDirectory(home.runs / planned.plan.run_id)
    with pytest.raises(UnreachableError):
        launch_command._start(Client(), run, planned, [])
    assert run.summary().state == "failed"
    assert documents.parse(run.result_file.read_bytes())["reason"] == "not started: gone"
