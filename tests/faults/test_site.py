"""Agents and workers that are killed in the middle of a round: the run goes on, and they take part again."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

import psutil

from tests.e2e import leftovers
from tests.e2e.toy_federation import Toys

DEADLINE_S = 60.0
STEPS = 1500  # long enough for a kill to come in the middle
NAMED = {"completed", "degraded", "abandoned"}


def _asked(number: int) -> Any:
    return lambda event: event["kind"] == "asked" and event["phase"] == "train" and event["round"] == number


def _outcomes(result: dict[str, Any], name: str) -> dict[int, str]:
    site = next(site for site in result["sites"] if site["name"] == name)
    return {found["number"]: found["outcome"] for found in site["rounds"]}


def test_an_agent_killed_mid_round_is_missed_by_the_deadline_and_takes_part_again(toys: Toys) -> None:
    home = toys.site_home("carl")
    # With a minimum of three the next round waits until the third site is back.
    run = toys.launch("rounds.count=3", "rounds.minimum=3", f"rounds.deadline_s={DEADLINE_S:g}", f"local.steps={STEPS}")
    watch = toys.watch(run)
    watch.until(_asked(1))
    worker = leftovers.wait_busy(home)
    agent = toys.agents.pop("carl")
    os.kill(agent.pid, signal.SIGKILL)
    agent.wait()
    with contextlib.suppress(psutil.TimeoutExpired):
        worker.wait(timeout=10)
    assert leftovers.after(home, within_s=5) == []

    first = watch.until(lambda event: event["kind"] == "round_finished" and event["round"] == 1)
    assert first["outcome"] == "abandoned"
    assert first["participants"] == 2
    assert "3" in first["reason"]
    assert first["seconds"] <= DEADLINE_S + 1

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
    run = toys.launch("rounds.count=2", "rounds.minimum=2", f"local.steps={STEPS}")
    watch = toys.watch(run)
    watch.until(_asked(1))
    leftovers.wait_busy(home).kill()
    assert watch.finished()["outcome"] == "completed"
    result = toys.result(run)
    assert [found["outcome"] for found in result["rounds"]] == ["degraded", "completed"]
    assert _outcomes(result, "bert") == {1: "failed", 2: "ok"}
    assert toys.agents["bert"].poll() is None
