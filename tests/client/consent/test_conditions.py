"""Conditions with toy numbers: what holds, what does not, what the host does not tell, and who is asked first."""

from __future__ import annotations

import sys
import time
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.consent import conditions, host_facts
from fedsite.client.consent.conditions import Facts
from fedsite.client.settings import AgentSettings, PolicySettings, Settings

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rules", "bad", "good", "word"),
    [
        ({"mains_only": True}, {"on_mains": False}, {"on_mains": True}, "policy.mains_only"),
        ({"no_metered": True}, {"metered": True}, {"metered": False}, "policy.no_metered"),
        ({"max_celsius": 70.0}, {"cpu_celsius": 70.5}, {"cpu_celsius": 70.0}, "at most 70 (policy.max_celsius)"),
        ({"load_max": 1.5}, {"load": 1.6}, {"load": 1.5}, "at most 1.5 (policy.load_max)"),
        ({"memory_free": 100}, {"memory_available": 99}, {"memory_available": 100}, "at least 100"),
        ({"hours": ("13:00-14:00",)}, {}, {"local_time": NOON.replace(hour=13)}, "the next begin mon 13:00"),
    ],
)
def test_each_condition(rules: dict[str, Any], bad: dict[str, Any], good: dict[str, Any], word: str) -> None:
    policy = PolicySettings(**rules)
    (reason,) = conditions.reasons(policy, Facts(**({"local_time": NOON} | bad)))
    assert word in reason
    assert conditions.reasons(policy, Facts(**({"local_time": NOON} | good))) == []
    # Nobody asked, nothing is wrong; and all reasons are told at once.
    assert conditions.reasons(PolicySettings(), Facts(**({"local_time": NOON} | bad))) == []


def test_a_fact_that_nobody_tells_blocks_nothing_and_is_a_finding() -> None:
    policy = PolicySettings(mains_only=True, no_metered=True, max_celsius=70.0, load_max=1.0, memory_free=1)
    facts = Facts(local_time=NOON)
    assert conditions.reasons(policy, facts) == []
    found = conditions.unknown(policy, facts)
    assert [finding.code for finding in found] == [
        "condition-mains-only",
        "condition-no-metered",
        "condition-max-celsius",
        "condition-load-max",
        "condition-memory-free",
    ]
    assert all(finding.severity == "warning" and finding.remedy for finding in found)
    assert conditions.unknown(PolicySettings(), facts) == []


def test_a_pause_comes_before_the_host_is_asked() -> None:
    settings = Settings(policy=PolicySettings(mains_only=True))
    paused: list[str | None] = ["paused"]
    asked: list[int] = []

    def facts(_: Settings) -> Facts:
        asked.append(1)
        return Facts(local_time=NOON, on_mains=False)

    not_now = conditions.gate(lambda: settings, facts, lambda: paused[0])
    assert (not_now(), asked) == ("paused", [])
    paused[0] = None
    assert "battery" in str(not_now())


@pytest.mark.parametrize(
    ("answer", "metered"), [("u 1", True), ("u 3", True), ("u 2", False), ("u 4", False), ("u 0", None), ("", None)]
)
def test_the_network_manager_is_asked(monkeypatch: pytest.MonkeyPatch, answer: str, metered: bool | None) -> None:
    done = types.SimpleNamespace(stdout=answer + "\n")
    monkeypatch.setattr(host_facts.subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(host_facts, "_ROUTES", Path("/none"))
    assert host_facts.metered() is metered
    assert (host_facts.metered(True), host_facts.metered(False)) == (True, False)


def test_a_mobile_network_is_metered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(host_facts.subprocess, "run", nobody)
    routes = tmp_path / "route"
    routes.write_text("Iface\tDestination\twords\neth0\t0000A8C0\t1\nwwan0\t00000000\t1\n")
    monkeypatch.setattr(host_facts, "_ROUTES", routes)
    assert host_facts.metered() is True
    routes.write_text("Iface\tDestination\neth0\t00000000\n")
    assert host_facts.metered() is None


def test_sensors_are_the_processor_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def at(celsius: float) -> Any:
        return types.SimpleNamespace(current=celsius)

    psutil = types.SimpleNamespace(
        sensors_temperatures=lambda: {"nvme": [at(90.0)], "coretemp": [at(61.0), at(64.0)]},
        sensors_battery=lambda: types.SimpleNamespace(power_plugged=False),
        virtual_memory=lambda: types.SimpleNamespace(available=5),
    )
    monkeypatch.setitem(sys.modules, "psutil", psutil)
    assert (host_facts.cpu_celsius(), host_facts.on_mains(), host_facts.memory_available()) == (64.0, False, 5)
    monkeypatch.setitem(sys.modules, "psutil", None)  # not installed
    assert (host_facts.cpu_celsius(), host_facts.on_mains(), host_facts.memory_available()) == (None, None, None)


def test_a_sensor_that_makes_no_sense_blocks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nonsense() -> Any:
        raise ValueError("invalid literal for int(): 'n/a'")

    monkeypatch.setitem(sys.modules, "psutil", types.SimpleNamespace(sensors_battery=nonsense))
    assert host_facts.on_mains() is None


def test_the_time_is_that_of_the_zone_as_it_is_set_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in an agent that was started before, and over the night in which the clocks change."""
    wall = datetime(2026, 3, 29, 22, 0, tzinfo=UTC)  # summer time began that morning
    try:
        for zone, hours in (("JST-9", 9), ("UTC0", 0)):
            monkeypatch.setenv("TZ", zone)
            assert host_facts.local_time().utcoffset() == timedelta(hours=hours)
        monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        host_facts.local_time()
        assert host_facts.at_this_place(wall - timedelta(days=1)).astimezone(UTC).hour == 21
        assert host_facts.at_this_place(wall).astimezone(UTC).hour == 20
    finally:
        monkeypatch.undo()
        time.tzset()


def test_only_what_is_asked_for_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("on_mains", "cpu_celsius", "metered", "memory_available", "load"):
        monkeypatch.setattr(host_facts, name, lambda *_: pytest.fail("read"))
    assert host_facts.read(Settings()).on_mains is None
    monkeypatch.setattr(host_facts, "metered", lambda said: said)
    settings = Settings(policy=PolicySettings(no_metered=True), agent=AgentSettings(metered=True))
    assert host_facts.read(settings).metered is True
