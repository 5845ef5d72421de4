"""Runs that hold a reservation although their own plan is over are named, and nothing is released by that."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedsite.client.health import facts as health_facts
from fedsite.client.health import overview
from fedsite.client.identity import site
from fedsite.client.ledger import forgotten
from fedsite.client.ledger.budget import Budget
from fedsite.client.store import Outbox
from fedsite.protocol import instants
from fedsite.protocol.plan import LONGEST_S, ProtectionPlan, RoundsPlan
from tests.budgets import AT, ROUND, reserve
from tests.cli.test_site_commands import join_on_disk
from tests.ledger_play import PLAN, RUN

ROUNDS = RoundsPlan(count=10, minimum=2, deadline_s=100.0, wait_s=50.0, patience=2)
BEGUN = instants.read(AT)


def test_the_longest_a_run_may_take_uses_up_every_wait_and_deadline() -> None:
    sealed = replace(PLAN, rounds=ROUNDS, protection=ProtectionPlan(mode="sealed"))
    # 10 rounds, each abandoned once: 50 s until there are sites, 100 s to train, 100 s to evaluate.
    assert forgotten.longest(sealed) == timedelta(seconds=20 * 250 + 50 + 6 * 100)
    secure = replace(sealed, protection=ProtectionPlan(mode="secagg", stage_s=30.0, retries=1))
    assert forgotten.longest(secure) == timedelta(seconds=20 * (50 + 2 * 440) + 50 + 6 * 440)


@pytest.mark.parametrize("kept", [True, False])
def test_an_open_run_is_named_when_its_plan_is_over_and_not_before(tmp_path: Path, kept: bool) -> None:
    directory = join_on_disk(tmp_path)
    plan = replace(PLAN, rounds=ROUNDS)
    budget = Budget(directory / "budget.db")
    reserve(budget, RUN)
    reserve(budget, RUN[:-1] + "Z")
    budget.finish(RUN[:-1] + "Z", AT)
    before = budget.charged("window", "/data.csv")
    if kept:
        Outbox(directory / "outbox").accept(RUN, plan.encode())
    end = BEGUN + (forgotten.longest(plan) if kept else forgotten.WITHOUT_PLAN)
    assert named(directory, end) == []
    (found,) = named(directory, end + timedelta(seconds=1))
    assert found["severity"] == "warning"
    assert found["remedy"].endswith(f"fedsite privacy --close {RUN}")
    assert budget.charged("window", "/data.csv") == before
    budget.commit(RUN, "1", [ROUND], AT, unit="window")
    budget.finish(RUN, AT)
    assert named(directory, end + timedelta(days=1)) == []
    budget.close()


def named(directory: Path, now: datetime) -> list[dict[str, str]]:
    who = site.load(directory)
    facts = health_facts.read(who, now, counting=None)
    found = overview.value(who, facts, overview.findings(facts))["findings"]
    return [one for one in found if one["code"] == "reservation"]


def test_a_plan_that_may_take_for_ever_and_one_that_is_none(tmp_path: Path) -> None:
    endless = RoundsPlan(count=100_000, minimum=2, deadline_s=LONGEST_S, wait_s=LONGEST_S, patience=1000)
    budget = Budget(tmp_path / "budget.db")
    reserve(budget, RUN)
    entries = budget.entries()
    budget.close()
    late = datetime(9000, 1, 1, tzinfo=UTC)
    assert forgotten.forgotten(entries, lambda run: replace(PLAN, rounds=endless), late) == []
    assert forgotten.forgotten(entries, lambda run: None, late) == [RUN]
    assert forgotten.plan_of(b"{") is None
    assert forgotten.plan_of(PLAN.encode()) == PLAN
