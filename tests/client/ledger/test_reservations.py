"""What was spent follows the records: into another file, under another task's name, and as they grow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedsite.client.ledger.budget import Budget
from fedsite.client.settings import DataSettings
from fedsite.protocol import shape
from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.plan import PrivacyPlan, RoundPlan

DAY = 86_400.0
PUMP_1 = {"clock": "utc", "entities": {"pump-1": [0.0, DAY]}}
PUMP_2 = {"clock": "utc", "entities": {"pump-2": [0.0, DAY]}}


def number(plan: RoundPlan, last: str) -> RoundPlan:
    return replace(plan, run_id=plan.run_id[:-1] + last)


def asked_with(kit: Any) -> list[list[list[float]]]:
    """What earlier runs had spent, in each question for a price."""
    return [arguments["spent"] for operation, arguments in kit.worker.calls if operation == "cost"]


def private(unit: str = "entity") -> PrivacyPlan:
    return shape.read(PrivacyPlan, {"mode": "sample", "unit": unit, "noise_multiplier": 2.0, "statistics_noise": 10.0})


def accept(
    kit: Any, last: str, covers: dict[str, Any], path: str = "/a.csv", unit: str = "entity", policy: Any = None
) -> Any:
    """The answer to another run's first question, with the data in another file."""
    kit.settings = replace(kit.settings, data=DataSettings(path=path))
    kit.worker.covers = covers
    kit.worker.calls.clear()
    plan = number(kit.centre.plan(privacy=private(unit)), last)
    return kit.answer(kit.centre.prepare(kit.site, plan), kit.handler(**(policy or {}))).code


def test_renamed_or_moved_data_inherits_what_was_spent(kit: Any) -> None:
    assert accept(kit, "1", PUMP_1) is None
    assert accept(kit, "2", PUMP_1, path="/moved.csv") is None
    unknown, known = asked_with(kit)
    assert unknown == []  # the name says nothing
    assert known  # the records do
    assert accept(kit, "3", PUMP_2, path="/others.csv") is None
    assert asked_with(kit) == [[]]


def test_a_record_over_the_cap_is_refused_under_any_file_name_and_nothing_stays_reserved(kit: Any) -> None:
    assert accept(kit, "1", PUMP_1) is None
    prices = iter([1.0, 12.0])
    call = kit.worker.call

    def dearer(operation: str, *given: Any, **named: Any) -> Any:
        if operation == "cost":
            kit.worker.epsilon = next(prices)
        return call(operation, *given, **named)

    kit.worker.call = dearer
    assert accept(kit, "2", PUMP_1, path="/moved.csv") == RefusalCode.BUDGET
    budget = Budget(kit.budget_path)
    assert {entry.run_id[-1] for entry in budget.entries()} == {"1"}
    budget.close()


@pytest.mark.parametrize(("unit", "apart"), [("window", True), ("entity", False)])
def test_later_windows_are_other_windows_and_an_entity_stays_itself(kit: Any, unit: str, apart: bool) -> None:
    later = {"clock": "utc", "entities": {"pump-1": [2 * DAY, 3 * DAY]}}
    assert accept(kit, "1", PUMP_1, unit=unit) is None
    assert accept(kit, "2", later, path="/later.csv", unit=unit) is None
    assert len(asked_with(kit)) == (1 if apart else 2)


def test_a_worker_that_does_not_say_stands_for_everything(kit: Any) -> None:
    assert accept(kit, "1", {}) is None
    assert accept(kit, "2", PUMP_2, path="/others.csv") is None
    assert asked_with(kit)[-1]


def test_a_site_with_a_new_identity_cannot_forget(kit: Any) -> None:
    from fedsite.protocol.keys import SigningKey

    assert accept(kit, "1", PUMP_1) is None
    kit.site = replace(kit.site, key=SigningKey.generate())
    assert accept(kit, "2", PUMP_2, path="/others.csv") is None
    assert asked_with(kit)[-1]  # under another key names cannot be compared


def test_data_that_grows_while_a_run_goes_on_is_checked_before_the_next_release(kit: Any) -> None:
    assert accept(kit, "1", PUMP_1) is None
    assert accept(kit, "2", PUMP_2, path="/others.csv") is None
    plan = number(kit.centre.plan(privacy=private()), "2")
    kit.worker.calls.clear()
    assert kit.answer(kit.centre.train(kit.site, plan)).code is None
    assert asked_with(kit) == []  # nothing new
    kit.worker.covers = {"clock": "utc", "entities": {"pump-1": [0.0, 1.0], "pump-2": [0.0, DAY]}}
    kit.worker.epsilon = 12.0
    assert kit.answer(kit.centre.train(kit.site, plan, round=2)).code == RefusalCode.BUDGET
    steps = sum(spend.steps for spend in kit.spent())
    assert steps == 3  # what was refused has not left, and was not charged
    kit.worker.epsilon = 9.0
    assert kit.answer(kit.centre.train(kit.site, plan, round=2, attempt=2)).code is None
    assert accept(kit, "3", PUMP_1, path="/third.csv") is None
    budget = Budget(kit.budget_path)
    covered = budget.covered(plan.run_id)
    assert covered is not None
    assert len(covered.spans) == 2
    budget.close()


def test_names_of_entities_are_not_in_the_file(kit: Any) -> None:
    assert accept(kit, "1", {"clock": "utc", "entities": {"patient-4711": [0.0, 1.0]}}) is None
    everything = b"".join(path.read_bytes() for path in kit.site.directory.glob("budget*"))
    assert b"4711" not in everything


@pytest.mark.parametrize(
    ("figure", "cap"), [("epsilon", "epsilon_max"), ("round", "epsilon_round"), ("task", "epsilon_task")]
)
def test_a_round_a_task_and_a_life_have_caps_of_their_own(kit: Any, figure: str, cap: str) -> None:
    setattr(kit.worker, figure, 4.5)
    assert accept(kit, "1", PUMP_1, policy={cap: 4.0}) == RefusalCode.BUDGET
    assert not kit.worker.touched_data
    assert accept(kit, "1", PUMP_1, policy={cap: 5.0}) is None


def test_the_cap_of_a_task_counts_its_own_runs_alone(kit: Any) -> None:
    assert accept(kit, "1", PUMP_1, policy={"epsilon_task": 5.0}) is None
    assert accept(kit, "2", PUMP_1, policy={"epsilon_task": 5.0}) is None
    (asked, *_) = [arguments for operation, arguments in kit.worker.calls if operation == "cost"]
    assert asked["of_task"] == asked["spent"] != []
    other = {**kit.centre.plan().task, "name": "other_pump"}
    plan = number(kit.centre.plan(task=other, privacy=private()), "3")
    kit.worker.calls.clear()
    kit.answer(kit.centre.prepare(kit.site, plan), kit.handler(epsilon_task=5.0))
    (asked, *_) = [arguments for operation, arguments in kit.worker.calls if operation == "cost"]
    assert asked["of_task"] == []
    assert asked["spent"] != []
