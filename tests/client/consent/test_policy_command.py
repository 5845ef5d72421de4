"""What `fedsite policy test` says to a plan is what the agent does with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from fedsite.client import settings
from fedsite.client.commands import policy as command
from fedsite.client.consent import approvals, conditions, host_facts, pause
from fedsite.client.consent.approvals import Approvals
from fedsite.client.settings import FILE, SettingsFile
from fedsite.protocol import instants
from fedsite.protocol.plan import CONTROLLED, LocalPlan, ModelPlan, PrivacyPlan, ProtectionPlan, StrategyPlan

WOULD = {"policy": "refuse", "approval": "ask a person", "not-now": "wait"}
Says = Callable[[Any], tuple[str, list[str]]]


@pytest.fixture
def says(kit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Says:
    """The command's word for a plan, and the codes it gives."""

    def ask(plan: Any) -> tuple[str, list[str]]:
        path = kit.site.directory / "plan.json"
        path.write_bytes(plan.encode())
        code = 0
        try:
            command.would_do(path, json=True)
        except typer.Exit as end:
            code = end.exit_code
        value = json.loads(capsys.readouterr().out)
        assert code == (6 if value["would"] == "refuse" else 0)
        return value["would"], [reason["code"] for reason in value["refused"]]

    monkeypatch.setattr(settings, "state_directory", lambda: kit.site.directory)
    return ask


CORRECTED = {"schema": CONTROLLED, "strategy": StrategyPlan(name="scaffold", control=True)}


def nothing(kit: Any, plan: Any) -> None:
    """The site is as it was."""


def paused(kit: Any, plan: Any) -> None:
    pause.begin(kit.site.directory, timedelta(hours=1), "", instants.now())


def rejected(kit: Any, plan: Any) -> None:
    Approvals(kit.site.directory / approvals.FOLDER).decide(plan, "rejected", by="ada", now="2026-03-01T12:00:00Z")


def approved(kit: Any, plan: Any) -> None:
    Approvals(kit.site.directory / approvals.FOLDER).decide(plan, "approved", by="ada", now="2026-03-01T12:00:00Z")


@pytest.mark.parametrize(
    ("rules", "changes", "before", "code"),
    [
        ("{}", {}, nothing, None),
        ("{tasks: [ward]}", {}, nothing, "policy"),
        ("{tasks: ['pump@sha256:%s']}" % ("a" * 64), {}, nothing, "policy"),
        ("{models: [gru]}", {"model": ModelPlan(name="mlp", init_hash="gru")}, nothing, "policy"),
        ("{strategies: [fedavg]}", {"strategy": StrategyPlan(name="fedprox")}, nothing, "policy"),
        ("{}", CORRECTED, nothing, None),
        ("{strategies: [fedavg]}", CORRECTED, nothing, "policy"),
        ("{steps_max: 2}", {"local": LocalPlan(steps=3, sampling_rate=0.1)}, nothing, "policy"),
        ("{minimum_protection: secagg}", {"protection": ProtectionPlan(mode="sealed")}, nothing, "protection"),
        ("{}", {"task": {"name": "pump"}}, nothing, "task-unsupported"),
        ("{}", {"task": {"name": "pump", "x": "y" * approvals.PLAN_BYTES}}, nothing, "too-large"),
        ("{approval: each}", {}, nothing, "approval"),
        ("{approval: once}", {}, approved, None),
        ("{}", {}, rejected, "policy"),
        ("{}", {}, paused, "not-now"),
    ],
)
def test_it_says_what_the_agent_does(
    kit: Any, says: Says, rules: str, changes: Any, before: Callable[[Any, Any], None], code: str | None
) -> None:
    directory: Path = kit.site.directory
    (directory / FILE).write_text(f"policy: {{require_privacy: false, {rules[1:]}\n")
    plan = kit.centre.plan(**({"privacy": PrivacyPlan()} | changes))  # no price is worked out
    before(kit, plan)
    chosen = SettingsFile(directory)
    not_now = conditions.gate(chosen.current, host_facts.read, lambda: pause.why_not(directory))
    would, codes = says(plan)
    reply = kit.answer(kit.centre.prepare(kit.site, plan), kit.built(settings=chosen, not_now=not_now))
    assert (None if reply.code is None else str(reply.code)) == code
    assert would == ("accept" if code is None else WOULD.get(code, "refuse"))
    assert code is None or kit.worker.calls == []
    assert codes[:1] == ([code] if would == "refuse" else [])
