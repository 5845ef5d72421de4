"""What is read from a state directory, and what is said where a file in it is broken."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedsite.client import running, state_directory
from fedsite.client.audit import log as audit_log
from fedsite.client.consent import approvals, pause
from fedsite.client.consent.approvals import Approvals
from fedsite.client.health import facts as health_facts
from fedsite.client.health import last_check, overview
from fedsite.client.identity import site
from fedsite.protocol import audit_lines, documents
from fedsite.protocol.errors import UnreachableError
from tests.cli.test_site_commands import join_on_disk
from tests.client.conftest import Centre

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return join_on_disk(tmp_path)


def look(directory: Path) -> dict[str, Any]:
    who = site.load(directory)
    facts = health_facts.read(who, NOW, counting=None)
    return overview.value(who, facts, overview.findings(facts))


def codes(directory: Path) -> list[str]:
    """What is not well beside that no agent runs."""
    found = [finding["code"] for finding in look(directory)["findings"]]
    assert found.count("agent") == 1
    return [code for code in found if code != "agent"]


def test_a_fresh_site_lacks_nothing_but_its_agent(directory: Path) -> None:
    before = sorted(directory.rglob("*"))
    value = look(directory)
    assert codes(directory) == []
    assert value["outbox"] == {"unsent": 0, "since": None}
    assert value["pause"] is None
    assert sorted(directory.rglob("*")) == before  # looking makes no files


def test_settings_of_the_agents_command_line_are_what_is_shown_and_told(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_directory, "running", lambda _: True)
    state = {"state": "idle", "pid": 1, "since": "2026-03-01T10:00:00Z", "overrides": ["policy.epsilon_max=5"]}
    (directory / state_directory.STATE).write_bytes(documents.canonical(state))
    value = look(directory)
    assert value["budget"]["epsilon_max"] == 5.0
    (finding,) = value["findings"]
    assert (finding["code"], finding["severity"], finding["text"]) == ("overrides", "info", "policy.epsilon_max=5")
    assert "site.yaml" in finding["remedy"]


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("site.yaml", b"policy: {epsilon_mx: 3}", "settings"),
        ("site.yaml", b"{", "settings"),
        ("budget.db", b"x" * 5000, "ledger"),
        ("current", b"c", "model"),
        ("pause.json", b"{", "paused"),
    ],
)
def test_a_broken_file_is_a_finding_and_the_rest_is_told(directory: Path, name: str, data: bytes, code: str) -> None:
    (directory / name).write_bytes(data)
    value = look(directory)
    assert codes(directory) == [code]
    assert value["certificate"]["days"] > 1000
    assert (value["budget"]["epsilon_max"] is None) == (code == "settings")


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"state":3}', b"\xff" * 70_000])
def test_a_state_file_that_is_none_says_starting(directory: Path, data: bytes) -> None:
    (directory / state_directory.STATE).write_bytes(data)
    assert look(directory)["agent"] == {"state": "stopped"}  # a file that was left
    with state_directory.only_one(directory):
        assert look(directory)["agent"] == {"state": "starting"}


def test_a_certificate_that_the_agent_could_not_renew_is_said_while_it_runs(directory: Path) -> None:
    problem = UnreachableError("no answer to /renew", next_step="")
    for told, wanted in (
        (running.not_renewed(problem), ["renewal"]),
        (running.not_renewed(None), []),
        ({"renewal": None}, []),
        ({"renewal": {"code": "renewal", "severity": "loud"}}, []),
    ):
        (directory / state_directory.STATE).write_bytes(documents.canonical({"state": "idle", "pid": 1, **told}))
        with state_directory.only_one(directory):
            value = look(directory)
        assert [finding["code"] for finding in value["findings"]] == wanted
        assert value["agent"] == {"state": "idle", "pid": 1}
        assert [finding["severity"] for finding in value["findings"]] == ["warning"] * len(wanted)
        assert all("fedsite doctor" in finding["remedy"] for finding in value["findings"])
    assert codes(directory) == []  # what an agent said that is gone


def test_looks_at_data_are_kept_and_tasks_never_looked_at_are_told(directory: Path) -> None:
    (directory / "site.yaml").write_text("policy: {tasks: [pump, ward, digits]}\n")
    last_check.keep(directory, "pump", [], NOW - timedelta(hours=1))
    last_check.keep(directory, "ward", ["range", "gap", "range"], NOW)
    last_check.keep(directory, "other", [], NOW)
    value = look(directory)
    assert value["data"] == [
        {"task": "pump", "checked": "2026-03-01T11:00:00Z", "codes": []},
        {"task": "ward", "checked": "2026-03-01T12:00:00Z", "codes": ["gap", "range"]},
        {"task": "digits", "checked": None, "codes": []},
        {"task": "other", "checked": "2026-03-01T12:00:00Z", "codes": []},
    ]
    found = [finding for finding in value["findings"] if finding["code"] == "contract"]
    assert [(finding["severity"], finding["remedy"]) for finding in found] == [
        ("error", "fedsite data check ward"),
        ("info", "fedsite data check digits"),
    ]


def test_damaged_looks_count_as_none(directory: Path) -> None:
    last_check.keep(directory, "pump", [], NOW)
    (path,) = (directory / last_check.FOLDER).iterdir()
    for data in (b"", b"[]", b'{"schema":"fedsite.last-check/1"}', b'{"schema":"fedsite.last-check/1","codes":3}'):
        path.write_bytes(data)
        assert last_check.read(directory, ["pump"])[0].checked is None


def test_a_pause_and_runs_that_wait(directory: Path) -> None:
    pause.begin(directory, timedelta(hours=2), "maintenance", NOW)
    store = Approvals(directory / approvals.FOLDER)
    plan = Centre().plan()
    later = replace(plan, run_id="01BRZ3NDEKTSV4RRFFQ69G5FAV")
    for each in (plan, later):
        store.note(each, "2026-03-01T12:00:00Z")
    value = look(directory)
    assert value["pause"]["reason"] == "maintenance"
    assert value["approvals"] == {"waiting": [later.run_id, plan.run_id]}
    assert sorted(codes(directory)) == ["approval", "paused"]
    store.decide(later, "approved", by="me", now="2026-03-01T12:00:00Z")
    store.note(plan, "2026-03-01T12:00:00Z", accepted=True)
    assert codes(directory) == ["paused"]


def test_hours_are_told_with_the_next_beginning(directory: Path) -> None:
    local = datetime.now().astimezone()
    begin, end = ((local + timedelta(hours=shift)).strftime("%H:00") for shift in (3, 4))
    (directory / "site.yaml").write_text(f'policy: {{hours: ["{begin}-{end}"]}}\n')
    assert len(look(directory)["not_now"]) == 1
    assert codes(directory) == ["not-now"]


def test_an_audit_log_that_takes_no_entries_is_said(directory: Path) -> None:
    who = site.load(directory)
    audit_log.record(directory, "joined", {"name": "alpha"})
    assert codes(directory) == []
    (path,) = audit_lines.files(directory / "audit" / who.id)
    path.write_bytes(path.read_bytes() + b'{"torn')
    assert codes(directory) == []  # the next to append mends it
    path.write_bytes(path.read_bytes().replace(b"alpha", b"gamma").removesuffix(b'{"torn'))
    (finding,) = [found for found in look(directory)["findings"] if found["code"] == "audit"]
    assert finding["severity"] == "error"
    assert "fedsite audit verify" in finding["remedy"]
