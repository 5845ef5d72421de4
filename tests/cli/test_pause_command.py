"""`fedsite pause` and `resume`: the same words with an agent, without one, and beside one that does not answer."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from fedsite.client import state_directory
from fedsite.client.consent import pause
from fedsite.protocol import instants
from tests.cli.test_site_commands import fedsite, join_on_disk
from tests.local_agent import LocalAgent, drop, short_directory


def test_a_pause_without_an_agent_waits_for_it(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    done = fedsite(tmp_path, "pause", "2h", "--reason", "maintenance", "--json")
    value = json.loads(done.stdout)
    assert (done.returncode, value["schema"], value["paused"], value["working"]) == (0, "fedsite.pause/1", True, None)
    held = pause.read(directory, instants.now())
    assert held is not None
    assert (instants.text(held.since), value["until"]) == (value["since"], instants.text(held.until or held.since))
    again = fedsite(tmp_path, "pause")
    assert again.stdout.startswith("paused since")
    assert "until fedsite resume" in again.stdout
    assert fedsite(tmp_path, "resume").stdout == "resumed\n"
    assert fedsite(tmp_path, "resume").stdout == "not paused; nothing was changed\n"
    assert json.loads(fedsite(tmp_path, "resume", "--json").stdout)["changed"] is False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pause", "2x"], ["pause '2x'", "such as 2d", "fedsite pause 2h"]),
        (["pause", "0s"], ["a pause of", "at most 366 days"]),
        (["pause", "999d"], ["a pause of", "at most 366 days"]),
        (["pause", "1h", "--reason", "x" * 201], ["a reason of 201 characters"]),
    ],
)
def test_a_wrong_length_changes_nothing(tmp_path: Path, words: list[str], said: list[str]) -> None:
    directory = join_on_disk(tmp_path)
    done = fedsite(tmp_path, *words)
    assert done.returncode == 2
    for text in said:
        assert text in done.stderr
    assert not (directory / pause.FILE).exists()


def test_a_host_that_has_not_joined_is_told_so(tmp_path: Path) -> None:
    for command in ("pause", "resume"):
        done = fedsite(tmp_path, command)
        assert (done.returncode, "has not joined" in done.stderr) == (2, True)
    assert not (tmp_path / "site").exists()


def test_with_an_agent_it_says_what_ends_first() -> None:
    home = short_directory()
    try:
        directory = join_on_disk(home)
        with state_directory.only_one(directory), LocalAgent(directory) as agent:
            agent.board.report({"state": "working", "kind": "train", "run_id": "R1", "round": 2})
            done = fedsite(home, "pause", "1h")
            assert (done.returncode, done.stderr) == (0, "train of round 2 of run R1 ends first\n")
            assert pause.read(directory, instants.now()) is not None
            assert fedsite(home, "resume").stdout == "resumed\n"
    finally:
        drop(home)


def test_an_agent_that_does_not_answer_is_paused_all_the_same() -> None:
    home = short_directory()
    try:
        directory = join_on_disk(home)
        with state_directory.only_one(directory), socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(directory / "agent.sock"))  # nobody listens
            assert fedsite(home, "pause", "1h").returncode == 0
            assert pause.read(directory, instants.now()) is not None
    finally:
        drop(home)
