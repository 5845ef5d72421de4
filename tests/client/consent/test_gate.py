"""Consent in the handler: before any data, for every instruction, by the rules as they are at that moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsite.client import settings_template
from fedsite.client.consent import approvals, history
from fedsite.client.consent.approvals import Approvals
from fedsite.client.consent.gate import Consent
from fedsite.client.handler import Handler
from fedsite.client.settings import FILE, Settings, SettingsFile
from fedsite.protocol.errors import PolicyError, RefusalCode
from fedsite.protocol.plan import ModelPlan, RoundPlan, RoundsPlan

SECOND = "01BX5ZZKBKACTAV9WEVGEMMVRZ"
NOW = "2026-03-01T12:00:00Z"
Told = list[tuple[str, Mapping[str, Any]]]
TRAIN_WORK = ("statistics", "train", "evaluate", "calibrate")


@pytest.fixture
def told() -> Told:
    """What the audit log was told."""
    return []


@pytest.fixture
def rules(kit: Any) -> Callable[[str], Path]:
    """Writes site.yaml."""

    def write(text: str) -> Path:
        path = kit.site.directory / FILE
        path.write_text(text)
        return path

    return write


@pytest.fixture
def make(kit: Any, told: Told) -> Callable[..., Handler]:
    """A handler over the site's own file."""

    def build(not_now: Callable[[], str | None] = lambda: None, chosen: Any = None) -> Handler:
        return kit.built(
            settings=SettingsFile(kit.site.directory) if chosen is None else chosen,
            not_now=not_now,
            audit=lambda kind, facts: told.append((kind, facts)),
        )

    return build


def kinds(told: Told) -> list[str]:
    return [kind for kind, _ in told]


def ask(kit: Any, kind: str, plan: RoundPlan) -> Any:
    """An instruction of this kind."""
    if kind == "prepare":
        return kit.centre.prepare(kit.site, plan)
    if kind == "train":
        return kit.centre.train(kit.site, plan)
    return kit.centre.ask(kit.site, kind, plan, {"model": b"m", "graph": b"g"})


@pytest.mark.parametrize("kind", ["prepare", *TRAIN_WORK, "advertise", "share"])
def test_nothing_begins_while_it_is_not_the_time(kit: Any, make: Any, told: Told, kind: str) -> None:
    plan, reason = kit.centre.plan(), ["outside policy.hours"]
    handler = make(lambda: reason[0] or None)
    purpose = {"purpose": "train"} if kind in ("advertise", "share") else {}
    asked = kit.centre.ask(kit.site, kind, plan, {"plan": plan.encode()}, **purpose)
    assert kit.answer(asked, handler).code == RefusalCode.NOT_NOW
    assert kit.answer(asked, handler).code == RefusalCode.NOT_NOW
    assert not kit.worker.calls
    assert not kit.budget_path.exists()
    # Asked for again and again, told once.
    assert kinds(told) == ["policy", "refused"]
    reason[0] = ""
    assert kit.answer(asked, handler).code != RefusalCode.NOT_NOW


@pytest.mark.parametrize("kind", ["confirm", "unmask", "finish"])
def test_what_has_begun_is_ended_also_while_paused(kit: Any, make: Any, kind: str) -> None:
    plan = kit.centre.plan()
    purpose = {} if kind == "finish" else {"purpose": "train"}
    asked = kit.centre.ask(kit.site, kind, plan, **purpose)
    assert kit.answer(asked, make(lambda: "paused")).code != RefusalCode.NOT_NOW


def test_an_answer_that_was_given_is_given_again_while_paused(kit: Any, make: Any) -> None:
    plan, reason = kit.centre.plan(), [""]
    handler = make(lambda: reason[0] or None)
    asked = kit.centre.prepare(kit.site, plan)
    first = handler.handle(asked)
    reason[0] = "paused"
    assert handler.handle(asked) == first
    # Another instruction of the same name is told to wait first, and then that it was answered.
    other = kit.centre.prepare(kit.site, plan, expires="2026-03-01T12:00:30Z")
    assert kit.answer(other, handler).code == RefusalCode.NOT_NOW
    reason[0] = ""
    assert kit.answer(other, handler).code == RefusalCode.REPLAYED


def test_each_run_waits_for_a_person(kit: Any, make: Any, rules: Any, told: Told) -> None:
    rules("policy: {approval: each}\n")
    plan, handler = kit.centre.plan(), make()
    asked = kit.centre.prepare(kit.site, plan)
    for _ in range(3):
        assert kit.answer(asked, handler).code == RefusalCode.APPROVAL
    assert not kit.worker.calls
    assert not kit.budget_path.exists()
    store = Approvals(kit.site.directory / approvals.FOLDER)
    assert [(known.plan, known.accepted) for known in store.known()] == [(plan, None)]
    store.decide(plan, "approved", by="ada", now=NOW)
    assert kit.answer(asked, handler).outcome == "ok"
    assert kit.answer(kit.centre.train(kit.site, plan), handler).outcome == "ok"
    assert kinds(told) == ["policy", "refused", "accepted", "released"]
    assert told[2][1]["decision"] == {"plan": plan.hash, "by": "ada", "at": NOW}
    assert kit.answer(kit.centre.ask(kit.site, "finish", plan, body={"outcome": "completed"}), handler).outcome == "ok"
    (known,) = store.known()
    assert (known.outcome, history.state(known, None)) == ("completed", "ended")


def test_once_is_for_every_run_launched_the_same_way(kit: Any, make: Any, rules: Any) -> None:
    rules("policy: {approval: once, epsilon_max: 100}\n")
    handler, plan = make(), kit.centre.plan()
    store = Approvals(kit.site.directory / approvals.FOLDER)
    assert kit.answer(kit.centre.prepare(kit.site, plan), handler).code == RefusalCode.APPROVAL
    store.decide(plan, "approved", by="ada", now=NOW)
    assert kit.answer(kit.centre.prepare(kit.site, plan), handler).outcome == "ok"
    again = kit.centre.plan(run_id=SECOND, created="2026-03-01T12:30:00Z", seed=3)
    assert kit.answer(kit.centre.prepare(kit.site, again), handler).outcome == "ok"
    changed = kit.centre.plan(run_id="01CX5ZZKBKACTAV9WEVGEMMVRZ", rounds=RoundsPlan(count=4))
    assert kit.answer(kit.centre.prepare(kit.site, changed), handler).code == RefusalCode.APPROVAL


def test_a_no_in_the_middle_ends_it(kit: Any, make: Any) -> None:
    handler, plan = make(), kit.centre.plan()
    assert kit.answer(kit.centre.prepare(kit.site, plan), handler).outcome == "ok"
    Approvals(kit.site.directory / approvals.FOLDER).decide(plan, "rejected", by="ada", now=NOW)
    calls = len(kit.worker.calls)
    assert kit.answer(kit.centre.train(kit.site, plan), handler).code == RefusalCode.POLICY
    assert len(kit.worker.calls) == calls


@pytest.mark.parametrize("kind", TRAIN_WORK)
def test_rules_hold_from_the_next_instruction_on(kit: Any, make: Any, rules: Any, told: Told, kind: str) -> None:
    path = rules("policy: {tasks: [pump]}\n")
    handler, plan = make(), kit.centre.plan()
    assert kit.answer(kit.centre.prepare(kit.site, plan), handler).outcome == "ok"
    calls = len(kit.worker.calls)
    path.write_text("policy: {tasks: [ward]}\n")
    assert kit.answer(ask(kit, kind, plan), handler).code == RefusalCode.POLICY
    assert len(kit.worker.calls) == calls
    digests = [facts["site_yaml"] for entry, facts in told if entry == "policy"]
    assert len(digests) == len(set(digests)) == 2


def test_rules_that_cannot_be_read_allow_nothing_but_an_end(kit: Any, make: Any, rules: Any, told: Told) -> None:
    path = rules("policy: {tasks: [pump]}\n")
    handler, plan = make(), kit.centre.plan()
    assert kit.answer(kit.centre.prepare(kit.site, plan), handler).outcome == "ok"
    calls = len(kit.worker.calls)
    path.write_text("policy: {tasks: [pump\n")
    for kind in ("prepare", *TRAIN_WORK):
        assert kit.answer(ask(kit, kind, kit.centre.plan(seed=5)), handler).code == RefusalCode.NOT_NOW
    asked = kit.centre.ask(kit.site, "install", plan, body={"version": "v", "manifest_hash": "h"})
    assert kit.answer(asked, handler).code == RefusalCode.NOT_NOW
    assert (len(kit.worker.calls), kit.installed) == (calls, [])
    assert told[-1][0] == "refused"
    assert ("policy", {"site_yaml": "unreadable"}) in told
    assert kit.answer(kit.centre.ask(kit.site, "finish", plan), handler).outcome == "ok"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(junk=st.binary(max_size=60), at=st.integers(0, 5000), drop=st.integers(0, 40))
def test_damaged_rules_begin_nothing_and_are_left_as_they_are(
    kit: Any, rules: Any, junk: bytes, at: int, drop: int
) -> None:
    path, whole = rules(settings_template.TEXT), settings_template.TEXT.encode()
    gate = Consent(
        SettingsFile(kit.site.directory),
        approvals=Approvals(kit.site.directory),
        not_now=lambda: None,
        audit=lambda kind, facts: None,
        clock=lambda: kit.now,
    )
    at %= len(whole)
    broken = whole[:at] + junk + whole[at + drop :]
    path.write_bytes(broken)
    gate.look()
    assert refusal(gate, kit) == (RefusalCode.NOT_NOW if unreadable(kit.site.directory) else None)
    assert path.read_bytes() == broken


def refusal(gate: Consent, kit: Any) -> RefusalCode | None:
    """Why training would not begin."""
    try:
        gate.begin(kit.centre.header(kit.site, "train", kit.centre.plan()))
    except PolicyError as error:
        return error.refusal
    return None


def unreadable(directory: Path) -> str:
    """Why the rules cannot be read; an error without words would be a defect."""
    try:
        SettingsFile(directory).current()
    except Exception as error:
        return str(error.found)  # type: ignore[attr-defined]
    return ""


def test_the_first_round_starts_from_the_weights_that_were_agreed_to(kit: Any, make: Any) -> None:
    plan = kit.centre.plan(model=ModelPlan(name="mlp", options={"hidden": [4]}, init_hash="ab" * 32))
    handler = make()
    assert kit.answer(kit.centre.prepare(kit.site, plan), handler).outcome == "ok"
    calls = len(kit.worker.calls)
    assert kit.answer(kit.centre.train(kit.site, plan), handler).code == RefusalCode.MODEL_INVALID
    assert len(kit.worker.calls) == calls
    assert kit.answer(kit.centre.train(kit.site, plan, round=2), handler).outcome == "ok"


def test_the_entries_of_a_run_add_up_to_what_it_took(kit: Any, make: Any, told: Told) -> None:
    handler, plan = make(chosen=Settings()), kit.centre.plan()
    frames = [kit.centre.prepare(kit.site, plan), kit.centre.train(kit.site, plan)]
    frames.append(kit.centre.ask(kit.site, "finish", plan))
    for frame in frames:
        handler.handle(frame)
    facts = [facts for kind, facts in told if kind in ("released", "ended")]
    assert sum(fact["bytes_down"] for fact in facts) == sum(frame.size for frame in frames)
    assert all(fact["seconds"] >= 0 for fact in facts)
    assert [[2.0, 0.1, 3]] in facts[0]["spends"].values()


def test_nobody_is_asked_about_what_is_no_task_or_too_long_to_read(
    kit: Any, rules: Callable[[str], Path], make: Callable[..., Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    rules("policy: {approval: each, require_privacy: false}")
    none = kit.centre.plan(task={"name": "pump", "channels": [[]] * 1000})
    long = kit.centre.plan(task={**none.task, "x": "y" * approvals.PLAN_BYTES})
    whole = kit.centre.plan(task={**none.task, "x": "y" * (approvals.PLAN_BYTES - 6000)})
    for plan, code in ((none, "task"), (long, "too-large"), (whole, "task")):
        answer = kit.answer(kit.centre.prepare(kit.site, plan), make())
        assert (answer.outcome, code in str(answer.code)) == ("refused", True)
    assert Approvals(kit.site.directory / approvals.FOLDER).known() == []
    assert kit.worker.calls == []
