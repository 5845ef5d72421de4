"""What a site tells of its runs: from decisions, the audit log and the budget, as the handler leaves them."""

from __future__ import annotations

from typing import Any

import pytest

from fedsite.client.consent import card, history
from fedsite.protocol.plan import LocalPlan, ModelPlan, RoundPlan, RoundsPlan, StrategyPlan

SECOND = "01BX5ZZKBKACTAV9WEVGEMMVRZ"


def play(kit: Any, plan: RoundPlan, outcome: str = "completed") -> None:
    handler = kit.logged()
    frames = [kit.centre.prepare(kit.site, plan)]
    frames += [kit.centre.train(kit.site, plan, round=number) for number in (1, 2)]
    frames.append(kit.centre.ask(kit.site, "finish", plan, body={"outcome": outcome}))
    for frame in frames:
        assert kit.answer(frame, handler).outcome == "ok"


def test_a_run_is_told_with_what_it_took(kit: Any) -> None:
    plan = kit.centre.plan()
    play(kit, plan)
    value = history.value(kit.site.directory)
    (run,) = value["rounds"]
    assert value["schema"] == "fedsite.rounds/1"
    assert (run["run_id"], run["state"], run["outcome"], run["task"]) == (plan.run_id, "ended", "completed", "pump")
    assert (run["rounds"], run["of"]) == (2, 3)
    assert run["bytes_down"] > len(plan.encode())
    assert run["bytes_up"] > 0
    assert run["price"] == [{"unit": plan.privacy.unit, "epsilon_reserved": 1.0}]


def test_a_run_whose_plan_is_gone_is_still_told(kit: Any) -> None:
    play(kit, kit.centre.plan())
    for path in (kit.site.directory / "approvals").iterdir():
        path.unlink()
    (run,) = history.value(kit.site.directory)["rounds"]
    assert (run["state"], run["rounds"], run["plan_hash"], run["task"]) == ("ended", 2, None, "pump")


def test_what_is_new_is_told_in_words(kit: Any) -> None:
    plan = kit.centre.plan()
    again = kit.centre.plan(run_id=SECOND, seed=3, created="2026-03-02T00:00:00Z")
    assert card.changes(plan, again) == []
    assert card.changes(None, plan) == ["nothing like it was agreed to here before: the first run of pump"]
    other = kit.centre.plan(
        rounds=RoundsPlan(count=5),
        local=LocalPlan(steps=4, sampling_rate=0.1),
        strategy=StrategyPlan(name="fedprox", options={"mu": 0.1}),
    )
    assert card.changes(plan, other) == [
        "training steps in a round: 3 before, 4 now",
        "rounds: 3 before, 5 now",
        "how updates are put together: fedavg before, fedprox now",
        "strategy.options: {} before, none now",
        "strategy.options.mu: none before, 0.1 now",
    ]


def test_what_is_new_in_a_long_list_is_told_by_its_place(kit: Any) -> None:
    plan = kit.centre.plan()
    channels = [dict(channel) for channel in plan.task["channels"]]
    channels[-1]["maximum"] = 1e6
    before = plan.task["channels"][-1]["maximum"]
    other = kit.centre.plan(task={**plan.task, "channels": channels})
    assert card.changes(plan, other) == [f"task.channels.{len(channels)}.maximum: {before:g} before, 1e+06 now"]


def test_what_leaves_is_told_without_what_the_plan_leaves_out(kit: Any, not_private: dict[str, Any]) -> None:
    private = card.leaves(kit.centre.plan())
    assert [line.split()[0] for line in private] == ["3", "sums"]
    assert len(card.leaves(kit.centre.plan(**not_private))) == 4


def test_the_card_is_complete_and_readable(kit: Any) -> None:
    plan = kit.centre.plan()
    made = card.make(plan, previous=None, source="/data/pump.csv", known={"readings": None, "checked": None}, quotes=[])
    shown = "\n".join(card.text({**made, "state": "waiting", "refused": []}))
    for word in ("/data/pump.csv", "3 rounds", "at most 6 minutes", f"fedsite rounds approve {plan.run_id}", "sealed"):
        assert word in shown


@pytest.mark.parametrize(
    ("before", "now"), [(1, True), (None, ...), ({"b": 1}, {"b": True}), ([{"c": 1}], {"1": {"c": 1}})]
)
def test_what_is_another_recipe_is_never_called_the_same(kit: Any, before: Any, now: Any) -> None:
    def plan(value: Any) -> Any:
        options = {"hidden": [4]} if value is ... else {"hidden": [4], "a": value}
        return kit.centre.plan(model=ModelPlan(name="mlp", options=options))

    assert plan(before).recipe != plan(now).recipe
    assert card.changes(plan(before), plan(now)) != []
    assert card.changes(plan(before), plan(before)) == []
