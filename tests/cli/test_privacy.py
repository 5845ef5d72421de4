"""`fedsite privacy`: accounts by source, task and unit, a run's price before it comes, and a ledger to show around."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedsite.client import state_directory
from fedsite.client.ledger.budget import Budget
from fedsite.client.ledger.covered import PURPOSE, hashed
from fedsite.privacy.accounting import Spend
from fedsite.protocol import documents, envelope
from fedsite.protocol.keys import SigningKey
from fedsite.telemetry.coverage import Coverage
from tests.budgets import AT
from tests.cli.test_site_commands import fedsite, join_on_disk
from tests.ledger_play import PLAN

SPEND = Spend(noise_multiplier=20.0, sampling_rate=1.0, steps=4)
A, B, C = ("01ARZ3NDEKTSV4RRFFQ69G5FA" + letter for letter in "ABC")


def account(
    directory: Path, run: str, source: str, entity: str, unit: str = "entity", task: str = "pump", spent: int = 4
) -> None:
    """A run that has spent some of what it reserved on one entity."""
    key = SigningKey.load(directory / "identity.key").derive(PURPOSE)
    budget = Budget(directory / "budget.db")
    budget.reserve(
        run_id=run, unit=unit, source=source, task=task, plan_hash="p", spends=[SPEND], epsilon=1.0, delta=1e-5, now=AT
    )
    budget.cover(run, hashed(Coverage(clock="utc", entities={entity: (0.0, 1.0)}), key))
    paid = Spend(noise_multiplier=20.0, sampling_rate=1.0, steps=spent)
    budget.commit(run, "000001-train-x", [paid], AT, unit=unit)
    budget.finish(run, AT)
    budget.close()


def shown(home: Path, *arguments: str) -> Any:
    done = fedsite(home, "privacy", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_accounts_follow_the_records_and_units_stay_apart(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    account(directory, A, "/a.csv", "pump-1")
    account(directory, B, "/moved.csv", "pump-1", task="renamed")
    account(directory, C, "/others.csv", "pump-9")
    account(directory, C[:-1] + "D", "/a.csv", "pump-1", unit="window")
    account(directory, C[:-1] + "E", "/a.csv", "pump-1", unit="site")
    account(directory, C[:-1] + "F", "/others.csv", "pump-9", unit="site")
    value = shown(tmp_path)
    accounts = {(one["unit"], one["source"]): one for one in value["sources"]}
    first, moved, others = (accounts["entity", f"/{name}.csv"] for name in ("a", "moved", "others"))
    assert (first["runs"], first["inherited"], moved["inherited"], others["runs"]) == (2, 1, 1, 1)
    assert first["epsilon"] == moved["epsilon"] > others["epsilon"] > 0
    assert accounts["window", "/a.csv"]["runs"] == 1
    assert accounts["site", "this site"]["runs"] == 2  # a site is one, whatever it reads
    assert first["left"] == pytest.approx(10 - first["epsilon"])
    assert {one["task"]: one["runs"] for one in value["tasks"] if one["unit"] == "entity"} == {"pump": 2, "renamed": 1}
    assert value["epsilon_task"] is None


def test_a_plan_is_priced_with_what_its_records_have_spent(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    (tmp_path / "plan.json").write_bytes(PLAN.encode())
    fresh = shown(tmp_path, "--plan", str(tmp_path / "plan.json"))
    (price,) = fresh["price"]
    assert (price["unit"], fresh["allowed"], fresh["unread"]) == ("entity", True, None)
    account(directory, A, "/elsewhere.csv", "p001")  # a pump of this site's, under another file name
    account(directory, B, "/elsewhere.csv", "nobody")
    spent = shown(tmp_path, "--plan", str(tmp_path / "plan.json"))
    (after,) = spent["price"]
    assert after["epsilon"] == price["epsilon"]
    assert after["epsilon_after"] > price["epsilon_after"]
    assert after["epsilon_before"] > 0
    (directory / "site.yaml").write_text("policy: {epsilon_max: 0.5, epsilon_round: 0.01}\n")
    refused = shown(tmp_path, "--plan", str(tmp_path / "plan.json"))
    assert refused["allowed"] is False
    assert ["epsilon_round" in reason["allowed"] for reason in refused["refused"]] == [True, False]
    (directory / "site.yaml").write_text("data: {path: /nowhere.csv}\n")
    unread = shown(tmp_path, "--plan", str(tmp_path / "plan.json"))
    assert unread["unread"]["code"] == "data-missing"
    assert unread["price"][0]["epsilon"] == price["epsilon"]


def test_an_exported_ledger_is_checked_with_nothing_but_the_file(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path / "one")
    account(directory, A, "/secret/path.csv", "patient-4711")
    account(directory, B, "/secret/other.csv", "patient-4711", spent=2)
    account(directory, C, "/secret/other.csv", "patient-4712", unit="site")
    file = tmp_path / "ledger.json"
    exported = shown(tmp_path / "one", "--export", str(file))
    assert exported["runs"] == 3
    assert file.stat().st_mode & 0o077 == 0
    text = file.read_text()
    assert "4711" not in text
    assert "secret" not in text
    own = shown(tmp_path / "one", "--verify", str(file))
    assert (own["ok"], own["own"], own["runs"], own["site_id"]) == (True, True, 3, exported["site_id"])
    assert shown(tmp_path / "nobody", "--verify", str(file))["own"] is None


def test_a_changed_or_dishonest_ledger_is_named(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    account(directory, A, "/a.csv", "pump-1")
    account(directory, B, "/moved.csv", "pump-1")
    file = tmp_path / "ledger.json"
    shown(tmp_path, "--export", str(file))
    outer = documents.parse(file.read_bytes())
    key = SigningKey.load(directory / "identity.key")

    def verified(change: Any, *, sign: bool) -> int:
        value = json.loads(json.dumps(outer["signed"]))
        change(value)
        signed = envelope.wrap("fedsite/sig/ledger/1", value, key)
        unsigned = documents.canonical({"signature": outer["signature"], "signed": value})
        (tmp_path / "changed.json").write_bytes(signed if sign else unsigned)
        done = fedsite(tmp_path, "privacy", "--verify", str(tmp_path / "changed.json"))
        assert "Traceback" not in done.stderr
        return done.returncode

    def smaller(value: Any) -> None:
        value["accounts"][0]["epsilon"] *= 0.5

    def run_smaller(value: Any) -> None:
        value["runs"][0]["epsilon_spent"] *= 0.5

    def left_out(value: Any) -> None:
        value["accounts"][0]["runs"].remove(A)

    def lost(value: Any) -> None:
        del value["accounts"]

    def another(value: Any) -> None:
        value["site"]["id"] = "0" * 32

    assert verified(lambda value: None, sign=False) == 0
    for change in (smaller, run_smaller, left_out, lost, another):
        assert verified(change, sign=False) == 4
    assert [verified(change, sign=True) for change in (smaller, run_smaller, left_out)] == [8, 8, 8]
    assert (verified(lost, sign=True), verified(another, sign=True)) == (2, 4)
    for data in (b"", b"[]", b'{"signed": 3}', file.read_bytes()[:-20]):
        (tmp_path / "broken.json").write_bytes(data)
        assert fedsite(tmp_path, "privacy", "--verify", str(tmp_path / "broken.json")).returncode == 2


def test_one_thing_at_a_time_and_a_ledger_that_is_gone_is_missed(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    assert fedsite(tmp_path, "privacy", "--close", A, "--export", "x").returncode == 2
    account(directory, A, "/a.csv", "pump-1")
    (directory / "budget.db").unlink()
    done = fedsite(tmp_path, "privacy")
    assert done.returncode == 7
    assert "missing" in done.stderr


def test_a_ledger_that_is_refused_is_accepted_by_a_command_of_its_own(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    account(directory, A, "/a.csv", "pump-1")
    nothing = fedsite(tmp_path, "privacy", "--accept")
    assert (nothing.returncode, "as it was written" in nothing.stderr) == (2, True)
    kept = (directory / "budget.db").read_bytes()
    account(directory, B, "/a.csv", "pump-1")
    (directory / "budget.db").write_bytes(kept)
    assert fedsite(tmp_path, "privacy", "--close", A).returncode == 7
    with state_directory.only_one(directory):
        assert fedsite(tmp_path, "privacy", "--accept").returncode == 2
    accepted = fedsite(tmp_path, "privacy", "--accept", "--json")
    assert (accepted.returncode, "the audit log says so" in accepted.stderr) == (0, True)
    assert [run["run_id"] for run in json.loads(accepted.stdout)["runs"]] == [A]
    assert fedsite(tmp_path, "privacy").returncode == 0
