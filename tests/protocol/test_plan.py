"""The plan: both ends read the same document, and values out of range are named."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol import documents
from fedsite.protocol.errors import DocumentError
from fedsite.protocol.plan import CostPlan, LocalPlan, ModelPlan, PrivacyPlan, RoundPlan, RoundsPlan


def plan(**changes: Any) -> RoundPlan:
    fields: dict[str, Any] = {
        "federation": "f",
        "run_id": "r",
        "created": "2026-01-02T03:04:05Z",
        "task": {"name": "pump", "window": {"length": 30}},
        "model": ModelPlan(name="mlp", options={"hidden": [64, 32]}),
        "local": LocalPlan(steps=14, sampling_rate=0.072),
        "rounds": RoundsPlan(count=25),
    }
    return RoundPlan(**(fields | changes))


def test_round_trip_keeps_the_hash() -> None:
    first = plan(privacy=PrivacyPlan(mode="sample", epsilon=8.0, noise_multiplier=1.1))
    second = RoundPlan.parse(first.encode())
    assert second == first
    assert second.hash == first.hash == documents.digest(documents.parse(first.encode()))
    assert second.task_name == "pump"


@given(st.integers(1, 100_000), st.floats(1e-9, 1.0), st.floats(0, 1e3))
def test_any_plan_in_range_travels(count: int, rate: float, learning_rate: float) -> None:
    local = LocalPlan(steps=1, sampling_rate=rate, learning_rate=learning_rate)
    made = plan(rounds=RoundsPlan(count=count), local=local)
    assert RoundPlan.parse(made.encode()) == made


def test_any_change_changes_the_hash() -> None:
    assert len({plan().hash, plan(seed=1).hash, plan(local=LocalPlan(steps=15, sampling_rate=0.072)).hash}) == 3


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("local", "steps", 0),
        ("local", "sampling_rate", 0.0),
        ("local", "sampling_rate", 1.01),
        ("local", "momentum", 1.0),
        ("local", "proximal", -0.1),
        ("local", "weight_decay", -1),
        ("local", "optimizer", "lbfgs"),
        ("privacy", "delta", 0.0),
        ("privacy", "delta", 0.5),
        ("privacy", "clip", 0),
        ("privacy", "epsilon", 0),
        ("privacy", "mode", "sample"),  # without noise
        ("privacy", "noise_multiplier", -1.0),
        ("privacy", "statistics_noise", -1.0),
        ("privacy", "evaluation_noise", -1.0),
        ("privacy", "calibration_noise", -1.0),
        ("rounds", "count", 0),
        ("rounds", "goal", 1),  # below minimum
        ("rounds", "deadline_s", 0),
        ("protection", "mode", "plain"),
    ],
)
def test_out_of_range_is_refused_by_name(section: str, key: str, value: object) -> None:
    document = documents.parse(plan().encode())
    document[section][key] = value
    with pytest.raises(DocumentError, match=section):
        RoundPlan.parse(documents.canonical(document))


@pytest.mark.parametrize("key", ["extra", "seed_"])
def test_unknown_keys_are_refused(key: str) -> None:
    document = documents.parse(plan().encode())
    with pytest.raises(DocumentError, match=f"unknown key {key}"):
        RoundPlan.parse(documents.canonical(document | {key: 1}))


def test_the_recipe_is_what_two_launches_of_the_same_run_share() -> None:
    first = plan(seed=1, model=ModelPlan(name="mlp", init_hash="a" * 64), cost=CostPlan(bytes_up=1))
    again = plan(
        seed=2, model=ModelPlan(name="mlp", init_hash="b" * 64), cost=CostPlan(bytes_up=2), run_id="s", created="now"
    )
    assert first.recipe == again.recipe
    assert first.hash != again.hash


def fields(value: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every field of a plan that is not made of others: its path, who has it, its name."""
    for field in dataclasses.fields(value):
        inner, name = getattr(value, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(inner):
            yield from fields(inner, f"{name}.")
        else:
            yield name, value, field.name


def test_whatever_else_changes_makes_another_recipe() -> None:
    """Each field that a plan has, and will have: who agrees to a recipe agrees to all but these few."""
    left_out = {"run_id", "created", "seed", "model.init_hash"}
    left_out |= {f"cost.{field.name}" for field in dataclasses.fields(CostPlan)}
    found = {name for name, _, _ in fields(plan())}
    assert left_out < found
    assert len(found) > 60
    same = set()
    for name in found:
        made = plan()
        _, owner, attribute = next(item for item in fields(made) if item[0] == name)
        object.__setattr__(owner, attribute, "another")
        if made.recipe == plan().recipe:
            same.add(name)
    assert same == left_out


def test_the_hash_of_a_task_is_of_its_whole_document() -> None:
    task = plan().task
    assert plan(seed=2).task_hash == plan().task_hash == documents.digest(task)
    assert plan(task={**task, "window": {"length": 31}}).task_hash != plan().task_hash
