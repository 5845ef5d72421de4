"""Real agents on a real server whose link, disk or process fails: answers arrive once, or are dropped by name."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedsite.protocol import documents
from fedsite.protocol.errors import ExitCode
from tests.e2e import leftovers
from tests.e2e.federation import end, free_port
from tests.e2e.toy_federation import LONGEST_S, Toys, Watch
from tests.faults.relay import Relay
from tests.lifeline import lifeline

pytestmark = pytest.mark.slow

STEPS = "local.steps=1500"  # long enough for something to fail in the middle
LIMITED = str(Path(__file__).with_name("limited.py"))


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toys]:
    """Two sites online; carl's way to the server is the relay."""
    with Toys(tmp_path_factory.mktemp("outbox")) as running:
        running.site("anna")
        running.prepare_site("carl")
        yield running


@pytest.fixture(scope="module")
def relay(toys: Toys) -> Iterator[Relay]:
    port = free_port()
    path = toys.site_state("carl") / "federation.json"
    value = documents.parse(path.read_bytes())
    path.write_bytes(documents.canonical({**value, "address": f"127.0.0.1:{port}"}))
    with Relay(port, toys.port) as relay:
        toys.start_agent("carl")
        toys.wait_online("anna", "carl")
        warm = toys.launch("rounds.count=1", "rounds.minimum=2", "protection=sealed")
        assert toys.watch(warm).finished()["outcome"] == "completed", toys.log("server", "carl")
        yield relay


def launched(toys: Toys, *overrides: str) -> tuple[str, Watch]:
    """A run of both sites, sealed; asked to train."""
    toys.wait_online("anna", "carl")
    run = toys.launch("protection=sealed", *overrides)
    watch = toys.watch(run)
    watch.until(lambda event: (event["kind"], event.get("phase")) == ("asked", "train"))
    return run, watch


def one_answer_each(watch: Watch) -> None:
    counted = Counter(
        (event["phase"], event["round"], event["site"])
        for event in watch.events
        if event["kind"] == "reply" and event["outcome"] == "ok"
    )
    assert set(counted.values()) == {1}, counted


def entries(toys: Toys) -> list[Path]:
    return list((toys.site_state("carl") / "outbox" / "unsent").glob("*.entry"))


def until(wanted: Callable[[], object]) -> None:
    stop = time.monotonic() + LONGEST_S
    while not wanted():
        assert time.monotonic() < stop
        time.sleep(0.02)


def answered(toys: Toys, run: str) -> None:
    """Until carl's answer to round 1 is on his disk."""
    folder = toys.site_state("carl") / "outbox" / run
    until(lambda: list(folder.glob("000001-train-*.reply")))


@contextlib.contextmanager
def limited(toys: Toys, *limit: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Carl's agent under a limit, and where its words go: through a pipe, a full disk takes none."""
    home = toys.site_home("carl")
    log = home / f"{limit[0]}.stderr"
    words = [sys.executable, LIMITED, *limit, "up"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FEDSITE_HOME": str(home)}
    with log.open("w") as sink, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=sink) as copy:
        assert copy.stdin is not None
        agent = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=copy.stdin, stderr=copy.stdin,
            start_new_session=True, preexec_fn=lifeline(),
        )  # fmt: skip
        try:
            yield agent, log
        finally:
            end(agent)  # type: ignore[arg-type]
            copy.stdin.close()


def storage_at(watch: Watch, phase: str) -> bool:
    """Whether carl said that his disk takes nothing, when he was asked this."""
    return any(
        (event["kind"], event.get("phase"), event.get("site"), event.get("code")) == ("reply", phase, "carl", "storage")
        for event in watch.events
    )


def comes_back(toys: Toys) -> None:
    """Carl takes part again once his disk is well."""
    assert entries(toys) == []
    toys.start_agent("carl")
    toys.wait_online("anna", "carl")
    watch = toys.watch(toys.launch("protection=sealed", "rounds.count=1", "rounds.minimum=2"))
    assert watch.finished()["outcome"] == "completed", (watch.events, toys.log("carl"))


def said(toys: Toys) -> str:
    """What carl's agents said."""
    return "".join(path.read_text() for path in toys.site_home("carl").glob("*.stderr"))


def test_a_link_that_is_cut_while_an_answer_is_made_costs_nothing_when_it_comes_back(toys: Toys, relay: Relay) -> None:
    run, watch = launched(toys, "rounds.count=1", "rounds.minimum=2", "rounds.deadline_s=90", STEPS)
    leftovers.wait_busy(toys.site_home("carl"))
    relay.cut()
    answered(toys, run)
    relay.wait_refused()
    relay.mend()
    assert watch.finished()["outcome"] == "completed", (watch.events, toys.log("carl"))
    first = watch.until(lambda event: event["kind"] == "round_finished")
    assert (first["outcome"], first["participants"]) == ("completed", 2)
    one_answer_each(watch)
    until(lambda: not entries(toys))


@pytest.mark.parametrize("moment", ["after", "offered", "sent"])
def test_an_agent_killed_between_storing_and_sending_is_heard_once(toys: Toys, relay: Relay, moment: str) -> None:
    carl = toys.restart_recorded("carl", place="train", moment=moment)
    run, watch = launched(toys, "rounds.count=1", "rounds.minimum=2", "rounds.deadline_s=90")
    assert carl.wait(timeout=LONGEST_S) == -signal.SIGKILL
    assert len(entries(toys)) == 1
    toys.start_agent("carl")
    assert watch.finished()["outcome"] == "completed", (watch.events, toys.log("carl"))
    first = watch.until(lambda event: event["kind"] == "round_finished")
    assert (first["outcome"], first["participants"]) == ("completed", 2)
    assert {event["attempt"] for event in watch.events if event["kind"] == "asked"} == {1}
    one_answer_each(watch)
    until(lambda: not entries(toys))
    assert f"the answer to train of run {run} (round 1, attempt 1) was not sent yet" in said(toys)


def test_a_link_that_is_lost_for_the_length_of_a_round_costs_that_round(toys: Toys, relay: Relay) -> None:
    run, watch = launched(toys, "rounds.count=4", "rounds.minimum=1", "rounds.deadline_s=12", STEPS)
    leftovers.wait_busy(toys.site_home("carl"))
    relay.cut()
    first = watch.until(lambda event: event["kind"] == "round_finished")
    assert (first["outcome"], first["participants"]) == ("degraded", 1)
    answered(toys, run)
    relay.mend()
    assert watch.finished()["outcome"] == "completed", watch.events
    outcomes = {
        found["number"]: found["outcome"]
        for site in toys.result(run)["sites"]
        if site["name"] == "carl"
        for found in site["rounds"]
    }
    assert outcomes.pop(1) in ("silent", "unreachable")
    one_answer_each(watch)
    until(lambda: not entries(toys))
    toys.wait_online("carl")


def test_a_disk_that_is_full_from_the_start_ends_the_agent_by_name(toys: Toys, relay: Relay) -> None:
    toys.wait_online("anna", "carl")
    end(toys.agents.pop("carl"))
    with limited(toys, "full", "10") as (agent, log):
        assert agent.wait(timeout=LONGEST_S) == ExitCode.STORAGE
    assert "File too large" in log.read_text()
    assert "next: " in log.read_text()
    toys.start_agent("carl")


def test_an_update_that_the_disk_has_no_room_for_is_a_refusal_by_name(toys: Toys, relay: Relay) -> None:
    toys.wait_online("anna", "carl")
    end(toys.agents.pop("carl"))
    largest = max(path.stat().st_size for path in toys.site_state("carl").rglob("*") if path.is_file())
    large = "model.options.hidden=[300,300]"  # 370 kB of weights
    with limited(toys, "full", str(largest + (64 << 10))) as (_, log):
        toys.wait_online("carl")
        watch = toys.watch(toys.launch("protection=sealed", "rounds.count=1", "rounds.minimum=1", large))
        assert watch.finished()["outcome"] == "completed", watch.events
    assert storage_at(watch, "train")
    assert "File too large" in log.read_text()
    comes_back(toys)


def test_an_outbox_that_cannot_be_written_is_a_refusal_by_name(toys: Toys, relay: Relay) -> None:
    toys.wait_online("anna", "carl")
    end(toys.agents.pop("carl"))
    outbox = toys.site_state("carl") / "outbox"
    folders = [outbox, *(path for path in outbox.iterdir() if path.is_dir())]
    with limited(toys, "readonly", "-") as (_, log):
        toys.wait_online("carl")
        for folder in folders:
            folder.chmod(0o500)  # while the agent runs, as a disk with an error is mounted anew
        try:
            watch = toys.watch(toys.launch("protection=sealed", "rounds.count=1", "rounds.minimum=1"))
            assert watch.finished()["outcome"] == "completed", watch.events
        finally:
            for folder in folders:
                folder.chmod(0o700)
    assert storage_at(watch, "prepare")
    assert "Permission denied" in log.read_text()
    assert "would not survive this process" in log.read_text()
    comes_back(toys)


def test_a_server_restarted_in_a_round_is_found_and_gets_the_answer_once_or_forgets_it_by_name(
    toys: Toys, relay: Relay
) -> None:
    run, watch = launched(toys, "rounds.count=1", "rounds.minimum=2", "rounds.deadline_s=90", STEPS)
    busy = leftovers.wait_busy(toys.site_home("carl"))
    with leftovers.stopped(busy):
        assert toys.server is not None
        os.kill(toys.server.pid, signal.SIGKILL)
        toys.server.wait()
        end(watch.process)
        assert leftovers.after(toys.home) == []
        toys.start()
    answered(toys, run)
    until(lambda: not entries(toys))
    toys.wait_online("anna", "carl")
    assert said(toys).count(f"run {run}: train answered") == 1
    assert toys.cli("runs", "stop", run, "--json").code == 0
    after = toys.watch(toys.launch("protection=sealed", "rounds.count=1", "rounds.minimum=2"))
    assert after.finished()["outcome"] == "completed", (after.events, toys.log("carl"))


def test_a_server_set_back_to_a_backup_is_found_again_and_nothing_is_paid_twice(toys: Toys, relay: Relay) -> None:
    private = ("privacy=sample", "privacy.epsilon=1", "rounds.count=1", "rounds.minimum=2", "protection=sealed")
    toys.wait_online("anna", "carl")
    first = toys.launch(*private)
    assert toys.watch(first).finished()["outcome"] == "completed"
    assert end(toys.server) == 0  # type: ignore[arg-type]
    backup = toys.directory / "backup"
    shutil.copytree(toys.state, backup)
    toys.start()
    toys.wait_online("anna", "carl")
    forgotten = toys.launch(*private)
    assert toys.watch(forgotten).finished()["outcome"] == "completed"
    before = spent(toys)
    assert {forgotten, first} <= set(before)

    assert end(toys.server) == 0  # type: ignore[arg-type]
    shutil.rmtree(toys.state)
    shutil.copytree(backup, toys.state)
    toys.start()
    toys.wait_online("anna", "carl")
    assert toys.cli("runs", "show", forgotten, "--json").code == 2
    assert spent(toys) == before
    third = toys.launch(*private)
    assert toys.watch(third).finished()["outcome"] == "completed", toys.log("carl")
    after = spent(toys)
    assert {run: after[run] for run in before} == before
    assert after[third] > 0


def spent(toys: Toys) -> dict[str, float]:
    """ε of carl's runs."""
    value: dict[str, Any] = json.loads(toys.cli("privacy", "--json", home=toys.site_home("carl")).stdout)
    return {entry["run_id"]: entry["epsilon_spent"] for entry in value["runs"]}
