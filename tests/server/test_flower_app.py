"""One attempt at a run, as Flower's ServerApp: driven once, stopped, without a start, and its key."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from fedsite.protocol import audit, audit_lines, audit_logs, documents
from fedsite.protocol.plan import ProtectionPlan, RoundPlan
from fedsite.protocol.secagg.manifest import Terms
from fedsite.server import flower_app
from fedsite.server.home import ServerHome
from fedsite.server.runs import ending
from fedsite.server.runs import folder as runs
from fedsite.server.runs.folder import Launch, RunDirectory
from fedsite.server.runs.journal import Reader
from tests.memory_grid import MemoryGrid
from tests.simulated_fleet import Play, SimulatedFleet


@pytest.fixture
def started(fleet: SimulatedFleet, tmp_path: Path) -> tuple[ServerHome, RunDirectory, RoundPlan]:
    return prepared(Play(fleet=fleet, folder=tmp_path / "server" / "runs"), tmp_path)


def prepared(play: Play, tmp_path: Path) -> tuple[ServerHome, RunDirectory, RoundPlan]:
    """A run of one round that was offered to a driver."""
    home = ServerHome(tmp_path / "server")
    for folder in (home.path, home.runs, home.logs, home.releases):
        folder.mkdir(mode=0o700)
    play.fleet.key.save(home.path / "signing.key")
    play = play.with_rounds(count=1, wait_s=0.0)
    plan = RoundPlan.parse(
        documents.canonical({**documents.parse(play.plan().encode()), "release": {"enabled": False}})
    )
    run = RunDirectory(home.runs / plan.run_id)
    run.create(plan, play.initial, Launch(trained=tuple(sorted(play.initial))))
    run.offer(1)
    return home, run, plan


@pytest.mark.usefixtures("roster")
def test_one_process_drives_an_epoch_and_the_next_one_does_not(
    grid: MemoryGrid, started: tuple[ServerHome, RunDirectory, RoundPlan]
) -> None:
    home, run, _ = started
    assert flower_app.drive(grid, home, run, epoch=1, owner="7")  # type: ignore[arg-type]
    result = run.result()
    assert result is not None
    assert (result["outcome"], result["rounds"][0]["participants"]) == ("completed", 2)
    assert not run.key_file.exists()
    before = len(Reader(run.journal_file).events())
    assert not flower_app.drive(grid, home, run, epoch=1, owner="8")  # type: ignore[arg-type]
    assert len(Reader(run.journal_file).events()) == before
    assert runs.find(home.runs, "latest").summary().state == "completed"
    (log,) = audit_logs.check([home.path / "audit"])
    assert log.verdict.ok
    kinds = [audit.read(line.data).kind for line in audit_lines.lines(log.files)]
    assert kinds[:2] == ["begun", "started"]
    assert kinds[-1] == "finished"


@pytest.mark.usefixtures("roster")
def test_secure_sums_over_flowers_messages(grid: MemoryGrid, fleet: SimulatedFleet, tmp_path: Path) -> None:
    terms = Terms(min_cohort=2, min_survivors=2)
    protection = ProtectionPlan(mode="secagg", terms=terms, examples_max=64)
    home, run, _ = prepared(Play(fleet=fleet, folder=tmp_path / "server" / "runs", protection=protection), tmp_path)
    assert flower_app.drive(grid, home, run, epoch=1, owner="7")  # type: ignore[arg-type]
    result = run.result()
    assert result is not None
    assert (result["outcome"], result["rounds"][0]["participants"]) == ("completed", 2)
    assert result["secagg"]["sums"][-1]["outcome"] == "opened"
    assert not run.key_file.exists()


@pytest.mark.usefixtures("roster")
def test_a_stop_file_ends_the_run(grid: MemoryGrid, started: tuple[ServerHome, RunDirectory, RoundPlan]) -> None:
    home, run, _ = started
    run.stop_file.touch()
    assert flower_app.drive(grid, home, run, epoch=1, owner="7")  # type: ignore[arg-type]
    assert run.summary().state == "stopped"


@pytest.mark.usefixtures("roster")
def test_a_run_that_cannot_start_has_a_result(
    grid: MemoryGrid, started: tuple[ServerHome, RunDirectory, RoundPlan]
) -> None:
    home, run, _ = started
    (home.path / "signing.key").unlink()
    assert flower_app.drive(grid, home, run, epoch=1, owner="7")  # type: ignore[arg-type]
    assert (run.summary().state, Reader(run.journal_file).events()[-1]["kind"]) == ("failed", "finished")


def test_the_run_key_is_encrypted_found_again_and_bound_to_the_server(
    fleet: SimulatedFleet, started: tuple[ServerHome, RunDirectory, RoundPlan]
) -> None:
    _, run, plan = started
    made = flower_app.run_key(plan, run, fleet.key)
    again = flower_app.run_key(plan, run, fleet.key)
    assert made is not None
    assert again is not None
    assert made.public == again.public
    assert made._seed not in run.key_file.read_bytes()
    with contextlib.suppress(AttributeError):
        assert run.key_file.stat().st_mode & 0o077 == 0


def test_the_end_of_a_run_that_nobody_drove_is_told(started: tuple[ServerHome, RunDirectory, RoundPlan]) -> None:
    home, run, _ = started
    ending.close(run, "failed", "not started")
    (log,) = audit_logs.check([home.path / "audit"])
    told = [audit.read(line.data) for line in audit_lines.lines(log.files)][-1]
    assert (told.kind, told.facts["run_id"], told.facts["outcome"]) == ("finished", run.run_id, "failed")
