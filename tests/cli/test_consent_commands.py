"""`fedsite policy` and `fedsite rounds`: what the rules say to a plan, and a person's yes or no, without an agent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.consent.approvals import Approvals
from fedsite.client.identity import site
from fedsite.protocol import documents, shape
from fedsite.protocol.plan import PrivacyPlan, ProtectionPlan, RoundPlan, RoundsPlan, StrategyPlan
from tests.cli.test_site_commands import fedsite, join_on_disk
from tests.client.conftest import Centre

NOW = "2026-03-01T12:00:00Z"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    join_on_disk(tmp_path)
    return tmp_path


@pytest.fixture
def plan(home: Path) -> RoundPlan:
    return Centre().plan(protection=ProtectionPlan(), federation=site.load_federation(home / "site").id)


def put(folder: Path, plan: RoundPlan, *, wrapped: bool = False) -> str:
    """The plan in a file, bare or as `launch --plan --json` prints it."""
    value = shape.plain(plan)
    path = folder / "plan.json"
    path.write_bytes(documents.canonical({"schema": "fedsite.forecast/1", "plan": value} if wrapped else value))
    return str(path)


def test_init_writes_a_file_once(home: Path) -> None:
    first = fedsite(home, "policy", "init", "--json")
    path = home / "site" / "site.yaml"
    assert (first.returncode, json.loads(first.stdout)["already"]) == (0, False)
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("policy: {approval: once}\n")
    again = fedsite(home, "policy", "init", "--json")
    assert (again.returncode, json.loads(again.stdout)["already"]) == (0, True)
    assert path.read_text() == "policy: {approval: once}\n"
    shown = json.loads(fedsite(home, "policy", "show", "--json").stdout)
    assert (shown["schema"], shown["policy"]["approval"], shown["now"]) == ("fedsite.policy/1", "once", [])


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_plan_that_would_be_accepted(home: Path, plan: RoundPlan, wrapped: bool) -> None:
    done = fedsite(home, "policy", "test", put(home, plan, wrapped=wrapped), "--json")
    value = json.loads(done.stdout)
    assert (done.returncode, value["would"], value["refused"]) == (0, "accept", [])
    (price,) = value["price"]
    assert price["epsilon_after"] == price["epsilon"] > 0
    assert (value["plan_hash"], value["recipe"]) == (plan.hash, plan.recipe)


def test_every_reason_is_told_and_the_exit_code_is_6(home: Path, plan: RoundPlan) -> None:
    (home / "site" / "site.yaml").write_text(
        "policy: {tasks: [ward], strategies: [fedavg], cohort_min: 4, epsilon_round: 0.01, epsilon_max: 0.02}\n"
    )
    privacy = PrivacyPlan(mode="sample", noise_multiplier=2.0)
    bad = replace(plan, strategy=StrategyPlan(name="fedprox"), privacy=privacy)
    done = fedsite(home, "policy", "test", put(home, bad), "--json")
    value = json.loads(done.stdout)
    assert (done.returncode, value["would"]) == (6, "refuse")
    assert [reason["code"] for reason in value["refused"]] == ["policy", "policy", "cohort", "budget", "budget"]
    text = fedsite(home, "policy", "test", put(home, bad)).stdout
    for word in ("pump@sha256:", "strategy fedprox", "policy.cohort_min", "policy.epsilon_round", "policy.epsilon_max"):
        assert word in text


def test_a_document_is_allowed_by_the_line_that_is_told(home: Path, plan: RoundPlan) -> None:
    rules, path = home / "site" / "site.yaml", put(home, plan)
    rules.write_text("policy: {tasks: [ward]}\n")
    refused = json.loads(fedsite(home, "policy", "test", path, "--json").stdout)
    assert refused["task_entry"] == f"pump@sha256:{plan.task_hash}"
    assert refused["task_entry"] in refused["refused"][0]["found"]
    rules.write_text(f"policy: {{tasks: [ward, {refused['task_entry']}]}}\n")
    done = fedsite(home, "policy", "test", path)
    assert (done.returncode, done.stdout.splitlines()[-1].strip()) == (0, refused["task_entry"])
    other = replace(plan, task={**plan.task, "title": "Another"})
    assert fedsite(home, "policy", "test", put(home, other)).returncode == 6


def test_a_plan_of_another_federation_is_none_of_ours(home: Path, plan: RoundPlan) -> None:
    done = fedsite(home, "policy", "test", put(home, replace(plan, federation="ab" * 16)), "--json")
    assert [reason["code"] for reason in json.loads(done.stdout)["refused"]] == ["wrong-run"]


def test_a_person_and_a_pause_are_told(home: Path, plan: RoundPlan) -> None:
    (home / "site" / "site.yaml").write_text("policy: {approval: each}\n")
    path = put(home, plan)
    value = json.loads(fedsite(home, "policy", "test", path, "--json").stdout)
    assert (value["would"], value["approval"]) == ("ask a person", {"mode": "each", "asks": True})
    Approvals(home / "site" / "approvals").decide(plan, "approved", by="ada", now=NOW)
    assert json.loads(fedsite(home, "policy", "test", path, "--json").stdout)["would"] == "accept"
    Approvals(home / "site" / "approvals").decide(plan, "rejected", by="ada", now=NOW)
    assert fedsite(home, "policy", "test", path).returncode == 6


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "fedsite.plan/1"}', '{"schema": "fedsite.forecast/1"}'])
def test_a_file_without_a_plan_is_named(home: Path, text: str) -> None:
    path = home / "plan.json"
    path.write_text(text)
    done = fedsite(home, "policy", "test", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert str(path) in done.stderr


def test_rules_that_cannot_be_read_are_named(home: Path, plan: RoundPlan) -> None:
    (home / "site" / "site.yaml").write_text("policy: {task: [pump]}\n")
    for words in (["policy", "show"], ["policy", "test", put(home, plan)]):
        done = fedsite(home, *words)
        assert done.returncode == 2
        assert "did you mean tasks?" in done.stderr


def decided(home: Path) -> list[Any]:
    return [one.verdict for one in Approvals(home / "site" / "approvals").decisions()]


def test_a_card_and_a_yes(home: Path, plan: RoundPlan) -> None:
    store = Approvals(home / "site" / "approvals")
    (home / "site" / "site.yaml").write_text("policy: {approval: once}\n")
    store.note(replace(plan, run_id="01ARZ3NDEKTSV4RRFFQ69G5FAA", rounds=RoundsPlan(count=2)), NOW, accepted=True)
    store.note(plan, "2026-03-02T12:00:00Z")
    listed = fedsite(home, "rounds")
    assert "waiting" in listed.stdout
    assert f"next: fedsite rounds show {plan.run_id}" in listed.stderr
    card = json.loads(fedsite(home, "rounds", "show", "--json").stdout)
    assert (card["run_id"], card["state"], card["new"]) == (plan.run_id, "waiting", ["rounds: 2 before, 3 now"])
    assert card["price"][0]["epsilon_left"] < 10
    text = fedsite(home, "rounds", "show", plan.run_id).stdout
    assert f"task document sha256:{plan.task_hash}" in text
    assert f"fedsite rounds approve {plan.run_id}" in text
    latest = fedsite(home, "rounds", "approve", "latest")  # another may have come since the card was read
    assert (latest.returncode, decided(home)) == (2, [])
    assert "whose card was read" in latest.stderr
    done = fedsite(home, "rounds", "approve", plan.run_id, "--json")
    assert (done.returncode, json.loads(done.stdout)["verdict"], decided(home)) == (0, "approved", ["approved"])
    audit = fedsite(home, "audit", "show", "--json").stdout
    assert plan.hash in audit
    assert fedsite(home, "rounds", "reject", plan.run_id[:25]).returncode == 2  # two runs begin so
    assert fedsite(home, "rounds", "reject", plan.hash).returncode == 0
    assert decided(home) == ["rejected"]


def test_a_yes_to_what_the_rules_refuse_is_none(home: Path, plan: RoundPlan) -> None:
    (home / "site" / "site.yaml").write_text("policy: {approval: each, tasks: [ward]}\n")
    Approvals(home / "site" / "approvals").note(plan, NOW)
    done = fedsite(home, "rounds", "approve", plan.run_id)
    assert (done.returncode, decided(home)) == (6, [])
    assert "task pump" in done.stderr


@pytest.mark.parametrize("words", [["show"], ["show", "01XX"], ["approve", "latest"], ["reject", "none"]])
def test_a_run_that_nobody_knows(home: Path, words: list[str]) -> None:
    done = fedsite(home, "rounds", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "none was ever asked for" in done.stderr
