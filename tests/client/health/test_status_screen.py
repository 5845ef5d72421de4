"""The status screen: it fits a terminal, tells what is not well last, and says nothing of what is not known."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.client.commands import status as command
from fedsite.client.health import findings as health
from fedsite.client.health import status_screen
from fedsite.client.health.findings import Finding

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def value(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "fedsite.status/2",
        "site": {"id": "fa" * 16, "name": "plant-0"},
        "federation": {"id": "06" * 16, "name": "pumps", "address": "fl.example.org:9443"},
        "certificate": {"expires": "2026-05-01T00:00:00Z", "days": 60.5},
        "agent": {"state": "idle", "since": "2026-03-01T10:00:00Z", "pid": 1},
        "budget": {"epsilon_max": 10.0, "delta": 1e-5, "open": 1, "finished": 2, "sources": []},
        "pause": None,
        "not_now": [],
        "approvals": {"waiting": []},
        "outbox": {"unsent": 0, "since": None},
        "data": [],
        "model": None,
        "host": {"disk_free": 10**10, "memory_available": None},
        "findings": [],
        **changes,
    }


def screen(**changes: Any) -> str:
    return "\n".join(status_screen.lines(value(**changes), NOW))


def test_a_site_that_is_well() -> None:
    shown = screen()
    for words in (
        "plant-0",
        "idle, started 2 h ago",
        "60.5 days left",
        "nothing spent; ε at most 10",
        "1 open",
        "all is well",
    ):
        assert words in shown
    assert "memory" not in shown


def test_what_is_being_worked_on() -> None:
    assert "train of round 3, run 01R" in screen(
        agent={"state": "working", "kind": "train", "round": 3, "run_id": "01R"}
    )
    assert "working" in screen(agent={"state": "working"})


def test_a_pause_and_waiting_runs_stand_in_their_rows() -> None:
    pause = {"since": "2026-03-01T11:00:00Z", "until": None, "reason": ""}
    shown = screen(pause=pause, approvals={"waiting": ["01A", "01B"]})
    assert "agent        paused, started 2 h ago" in shown
    assert "1 open, 2 finished, 2 waiting for you" in shown


def test_data_and_model() -> None:
    shown = screen(
        data=[
            {"task": "pump", "checked": "2026-03-01T09:00:00Z", "codes": []},
            {"task": "ward", "checked": None, "codes": []},
            {"task": "digits", "checked": "2026-03-01T09:00:00Z", "codes": ["range", "gap"]},
        ],
        model={"version": "pump-1", "task": "pump", "slot": "a", "verified": True},
    )
    for words in ("pump: ok, checked 3 h ago", "ward: never checked", "digits: range, gap", "pump-1 (task pump)"):
        assert words in shown


def test_broken_settings_leave_no_number_behind() -> None:
    budget = {"epsilon_max": None, "delta": None, "open": 0, "finished": 0, "sources": []}
    assert "privacy      not known" in screen(budget=budget, certificate={"expires": None, "days": None})


words = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=300)


@given(words, words, words, st.integers(0, 30))
def test_no_line_is_wider_than_a_terminal_and_no_site_fills_more_than_a_screen(
    name: str, source: str, text: str, count: int
) -> None:
    sources = [{"source": source, "unit": "entity", "epsilon": 1.23456, "left": 1.0, "runs": 1}] * count
    finding = health.plain(Finding(code="a", severity="warning", title=name, text=text, remedy=text))
    lines = status_screen.lines(
        value(
            site={"id": "fa" * 16, "name": name},
            budget={"epsilon_max": 10.0, "delta": 1e-5, "open": 1, "finished": 2, "sources": sources},
            data=[{"task": name, "checked": None, "codes": []}] * count,
            findings=[finding],
        ),
        NOW,
    )
    assert max(len(line) for line in lines) <= status_screen.WIDTH
    rows = lines[: lines.index("", 3)]
    assert len(rows) <= 18


def test_an_expired_certificate_and_a_wrong_clock_are_called_so() -> None:
    shown = screen(certificate={"expires": "2026-03-01T11:00:00Z", "days": -0.0}, agent={"state": "clock"})
    assert "certificate  expired on 2026-03-01" in shown
    assert "agent        not connected: the clock is wrong" in shown


def test_of_more_than_a_screen_one_of_each_kind_is_shown_and_the_rest_counted() -> None:
    findings = [
        health.plain(Finding(code=code, severity="error", title=f"{code} {number}", text=text, remedy="df -h"))
        for code, text, count in (("contract", "range", 15), ("agent", "down", 1), ("budget", "low " * 90, 14))
        for number in range(count)
    ]
    changes = {"findings": findings, "data": [{"task": "pump", "checked": None, "codes": []}] * 9}
    assert len(screen(**changes).splitlines()) > 60  # a pager gets them all
    shown = status_screen.lines(value(**changes), NOW, 23)
    assert len(shown) <= 23
    assert [line[13:] for line in shown if line.startswith("error")] == ["contract 0: range", "agent 0: down"]
    assert shown[-1] == "and 28 more: fedsite status | less"
    assert status_screen.lines(value(), NOW, 23) == status_screen.lines(value(), NOW)


@given(st.lists(st.tuples(st.sampled_from("abc"), words), max_size=30), st.integers(0, 40))
def test_the_first_finding_is_always_told(told: list[tuple[str, str]], room: int) -> None:
    findings = [
        health.plain(Finding(code=code, severity="error", title=code, text=text, remedy="")) for code, text in told
    ]
    shown = status_screen.findings(findings, room)
    assert shown[: len(status_screen.findings(findings[:1]))] == status_screen.findings(findings[:1])
    assert len(shown) <= max(room, len(status_screen.findings(findings[:1])) + 1)


def test_a_watch_without_an_agent_looks_again_and_prints_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDSITE_HOME", str(tmp_path))
    told = iter([value(), value(host={"disk_free": 1, "memory_available": 1}), value(data=[])])
    later = value(agent={"state": "stopped"})
    monkeypatch.setattr(command, "look", lambda: next(told, later))
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        command.status(watch=True, json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["agent"]["state"] for line in lines] == ["idle", "stopped"]
    assert set(pauses) == {command.AGAIN_S}
