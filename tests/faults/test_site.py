"""Agents and workers that are killed, or hang, in the middle of a sealed round: the run goes on, and they come back."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from fedsite.client import state_directory
from tests.e2e import leftovers
from tests.e2e.toy_federation import LONGEST_S, Toys

pytestmark = pytest.mark.slow

DEADLINE_S = 60.0
STEPS = 1500  # long enough for a kill to come in the middle
NAMED = {"completed", "degraded", "abandoned"}


def _asked(number: int) -> Any:
    return lambda event: event["kind"] == "asked" and event["phase"] == "train" and event["round"] == number


def _replied(phase: str, site: str) -> Any:
    return lambda event: (event["kind"], event.get("phase"), event.get("site")) == ("reply", phase, site)


def _outcomes(result: dict[str, Any], name: str) -> dict[int, str]:
    site = next(site for site in result["sites"] if site["name"] == name)
    return {found["number"]: found["outcome"] for found in site["rounds"]}


def test_an_agent_killed_mid_round_is_missed_by_the_deadline_and_takes_part_again(toys: Toys) -> None:
    home = toys.site_home("carl")
    # With a minimum of three the next round waits until the third site is back.
    run = toys.launch(
        "protection=sealed",
        "rounds.count=3",
        "rounds.minimum=3",
        f"rounds.deadline_s={DEADLINE_S:g}",
        f"local.steps={STEPS}",
    )
    watch = toys.watch(run)
    watch.until(_asked(1))
    leftovers.wait_busy(home)
    agent = toys.agents.pop("carl")
    os.kill(agent.pid, signal.SIGKILL)
    agent.wait()
    assert leftovers.after(home) == []

    first = watch.until(lambda event: event["kind"] == "round_finished" and event["round"] == 1)
    assert first["outcome"] == "abandoned"
    assert first["participants"] == 2
    assert "3" in first["reason"]

    toys.start_agent("carl")
    assert watch.finished()["outcome"] == "completed", watch.events
    result = toys.result(run)
    assert {found["outcome"] for found in result["rounds"]} <= NAMED
    outcomes = _outcomes(result, "carl")
    assert outcomes[1] in ("silent", "unreachable")
    assert "ok" in outcomes.values()


def test_a_worker_killed_in_training_is_a_failed_reply_and_the_run_goes_on(toys: Toys) -> None:
    toys.wait_online("anna", "bert", "carl")
    home = toys.site_home("bert")
    run = toys.launch("protection=sealed", "rounds.count=2", "rounds.minimum=2", f"local.steps={STEPS}")
    watch = toys.watch(run)
    watch.until(_asked(1))
    leftovers.wait_busy(home).kill()
    assert watch.finished()["outcome"] == "completed"
    result = toys.result(run)
    assert [found["outcome"] for found in result["rounds"]] == ["degraded", "completed"]
    assert _outcomes(result, "bert") == {1: "failed", 2: "ok"}
    assert toys.agents["bert"].poll() is None


def test_a_site_that_hangs_is_silent_by_the_deadline_and_its_late_reply_does_not_count(toys: Toys) -> None:
    _, first, _ = _hang(toys, "rounds.minimum=2", "rounds.deadline_s=8")
    assert first["outcome"] == "degraded"
    assert first["reason"].startswith("2 of 3 sites answered by the deadline of 8 s")


def test_what_a_hung_site_finishes_late_is_charged_once_and_too_few_is_named(toys: Toys) -> None:
    toys.wait_online("anna", "bert", "carl")
    private = ("privacy=sample", "privacy.epsilon=1", "rounds.minimum=3")
    warm = toys.launch(*private, "rounds.count=1")  # what a private run needs is loaded before a deadline is short
    assert toys.watch(warm).finished()["outcome"] == "completed"
    run, first, result = _hang(toys, *private, "rounds.deadline_s=12")
    assert first["outcome"] == "abandoned"
    assert first["reason"] == "2 of 3 sites answered by the deadline of 12 s, minimum 3"
    _charged_once(toys, run, result)


def _hang(toys: Toys, *overrides: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Hold carl, agent and worker, from the middle of round 1 to its end, and check what becomes of its reply.

    The deadline must be short of the 13 s in which a heartbeat may be missed: later it is unreachable, not silent.
    Returns the run, how its round 1 ended, and its result.
    """
    toys.wait_online("anna", "bert", "carl")
    statistics = not any(word.startswith("privacy=") for word in overrides)
    with ExitStack() as held, ExitStack() as gate:
        # While anna's worker does not answer the plan, or bert's the statistics, nothing follows: carl's is held when
        # it is sure to be idle.
        with leftovers.stopped(*leftovers.workers(toys.site_home("anna"))):
            run = toys.launch("protection=sealed", "rounds.count=4", "local.steps=5", *overrides)
            watch = toys.watch(run)
            if statistics:
                watch.until(_replied("prepare", "bert"))
                gate.enter_context(leftovers.stopped(*leftovers.workers(toys.site_home("bert"))))
            else:
                watch.until(_replied("prepare", "carl"))
                held.enter_context(leftovers.stopped(*leftovers.workers(toys.site_home("carl"))))
        if statistics:
            watch.until(_replied("statistics", "carl"))
            held.enter_context(leftovers.stopped(*leftovers.workers(toys.site_home("carl"))))
        gate.close()
        _wait_working(toys, "carl", "train")
        held.enter_context(leftovers.stopped(psutil.Process(toys.agents["carl"].pid)))
        first = watch.until(lambda event: event["kind"] == "round_finished")
    assert (first["round"], first["participants"], first["asked"]) == (1, 2, 3)
    watch.until(lambda event: (event["kind"], event.get("round"), event.get("site")) == ("late", 1, "carl"))
    assert watch.finished()["outcome"] == "completed", watch.events
    result = toys.result(run)
    outcome, *later = _outcomes(result, "carl").values()
    assert outcome == "silent"
    assert "ok" in later
    assert result["rounds"][0]["ignored"] == {"late": 1}
    _counted_once(watch.events, result)
    return run, first, result


def _wait_working(toys: Toys, name: str, kind: str) -> None:
    """Until the agent says that it works on an instruction of this kind."""
    path = toys.site_state(name) / state_directory.STATE
    until = time.monotonic() + LONGEST_S
    while (state := json.loads(path.read_text())).get("kind") != kind:
        assert time.monotonic() < until, state
        time.sleep(0.02)


def _counted_once(events: list[dict[str, Any]], result: dict[str, Any]) -> None:
    """Each counted reply is in one round, once, and a round has no other participants."""
    replies = [event for event in events if event["kind"] == "reply" and event["phase"] == "train"]
    counted = Counter(event["round"] for event in replies if event["outcome"] == "ok")
    assert len({(event["round"], event["site"]) for event in replies}) == len(replies)
    assert {found["number"]: found["participants"] for found in result["rounds"]} == counted


def _charged_once(toys: Toys, run: str, result: dict[str, Any]) -> None:
    """Each round in which the hung site trained is one release in its budget, the late one too."""
    with sqlite3.connect(f"file:{toys.site_state('carl') / 'budget.db'}?mode=ro", uri=True) as budget:
        rows = budget.execute("SELECT release, steps FROM spent WHERE run_id = ?", (run,)).fetchall()
    trained = Counter(int(release.partition("-")[0]) for release, steps in rows if "-train-" in release and steps > 1)
    assert trained[1] == 1
    assert set(trained.values()) == {1}
    entries = toys.cli("privacy", "--json", home=toys.site_home("carl")).value["runs"]
    own = next(entry for entry in entries if entry["run_id"] == run)
    told = next(site for site in result["sites"] if site["name"] == "carl")
    assert 0 < own["epsilon_spent"] <= told["epsilon"] * (1 + 1e-9)
