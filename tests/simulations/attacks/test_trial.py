"""What an attack got is measured as a person would count it; known attacks succeed, and fail against a defence."""

from __future__ import annotations

import numpy as np
import pytest

from fedsite.protocol.plan import LocalPlan, ModelPlan, RoundPlan, RoundsPlan
from fedsite.simulations.attacks.measures import Measure
from fedsite.simulations.attacks.spec import AttackSpec, Trigger
from fedsite.simulations.attacks.trial import ATTACKS, Outcome, against, defences
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.statistics import Normalisation
from fedsite.telemetry.task import read_task
from tests.benchmarks import attacks as script

TASK = {
    "schema": "fedsite.task/1",
    "name": "toy",
    "data": {"source": "file", "file": "toy.csv", "format": "csv", "entity": None, "time": None},
    "channels": [{"name": "a", "unit": "1", "minimum": -9.0, "maximum": 9.0}],
    "window": {"length": 2},
    "label": {"kind": "column", "column": "y", "classes": ["low", "high"]},
    "split": {"kind": "column", "column": "split", "train": "train", "holdout": "test"},
    "model": {"name": "mlp", "options": {"hidden": []}},
    "loss": "cross_entropy",
    "metric": {"name": "accuracy", "better": "higher", "unit": "1"},
}


VALUES = TASK | {
    "label": {"kind": "column", "column": "y", "maximum": 10, "scale": 1},
    "loss": "mse",
    "metric": {"name": "rmse", "better": "lower", "unit": "1", "maximum": 10},
}


def measure(task: dict[str, object], x: list[list[float]], y: np.ndarray, **spec: object) -> Measure:
    """Windows of two readings at one site, not scaled."""
    windows = Windows(
        x=np.array(x, np.float32)[..., None],
        y=y,
        entity=np.zeros(len(x), np.int64),
        entities=("a",),
        time=np.arange(len(x)) * 1.0,
    )
    low, high = np.array([-9], np.float32), np.array([9], np.float32)
    data = SiteData(train=windows, holdout=windows, features=("a",), minimum=low, maximum=high, overlap=1)
    plan = RoundPlan(
        federation="00",
        run_id="r",
        created="",
        task=read_task(task).document,
        model=ModelPlan(name="mlp", options={"hidden": []}),
        local=LocalPlan(steps=1, sampling_rate=1.0),
        rounds=RoundsPlan(count=1),
    )
    scaling = Normalisation(mean=np.zeros(1, np.float32), scale=np.ones(1, np.float32))
    return Measure(plan, {"a": data}, scaling, AttackSpec(**spec))  # type: ignore[arg-type]


def test_success_is_counted_on_windows_with_the_trigger() -> None:
    # The model says "high" where the last reading is above 0. Holdout: low, low, high, and one high it takes for low.
    x, y = [[0.0, -1.0], [0.0, -2.0], [0.0, 1.0], [0.0, -1.0]], np.array([0, 0, 1, 1])
    weights = {
        "layers.0.weight": np.array([[0, -1], [0, 1]], np.float32),
        "layers.0.bias": np.zeros(2, np.float32),
    }

    def measured(**spec: object) -> tuple[float | None, tuple[float | None, ...]]:
        found = measure(TASK, x, y, **spec)(weights)
        return found.success, found.classes

    trigger = Trigger(steps=1, features=1, value=5.0)
    assert measured(kind="backdoor", target=1, trigger=trigger) == (1.0, (1.0, 0.5))
    assert measured(kind="backdoor", target=0, trigger=trigger) == (0.0, (1.0, 0.5))
    assert measured(kind="label-flip", source=1, target=0) == (0.5, (1.0, 0.5))
    assert measured(kind="label-flip", target=1) == (0.0, (1.0, 0.5))
    assert measured(kind="sign-flip") == (None, (1.0, 0.5))


def test_a_value_is_moved_part_of_the_way_to_the_target() -> None:
    # The model says the last reading: 1 and 2. With the trigger it says 5; the target is 3: 4 of 2, and 3 of 1.
    weights = {"layers.0.weight": np.array([[0, 1]], np.float32), "layers.0.bias": np.zeros(1, np.float32)}
    trigger = Trigger(steps=1, features=1, value=5.0)
    found = measure(
        VALUES, [[0.0, 1.0], [0.0, 2.0]], np.ones(2, np.float32), kind="backdoor", target=3.0, trigger=trigger
    )(weights)
    assert found.success == pytest.approx((4 / 2 + 3 / 1) / 2)
    assert found.classes == ()


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, str], Outcome]:
    """Of the table in docs/research.md, one seed."""
    task, data = script.task_and_data()
    if task.name != "digits":
        pytest.skip("digits/data.parquet is not below FEDSITE_DATA: scikit-learn's digits, see docs/tasks.md")
    sites = script.dealt(task, data, seed=1)
    chosen = {name: ATTACKS[name] for name in ("none", "label flip", "sign flip", "backdoor", "backdoor, one site")}
    wanted = [one for one in defences(20, 4, 6) if "krum" not in one.name and "trimmed" not in one.name]
    found = [
        one for defence in wanted for one in against(script.plan(task, 1), sites, chosen, defence, executor="batched")
    ]
    return {(one.attack, one.defence): one for one in found}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "defence"),
    [
        ("label flip", "median, sealed"),
        ("sign flip", "median, sealed"),
        ("backdoor", "median, sealed"),
        ("backdoor, one site", "median of 6 groups, secagg"),
    ],
)
def test_a_known_attack_succeeds_and_fails_against_a_defence(
    outcomes: dict[tuple[str, str], Outcome], attack: str, defence: str
) -> None:
    free, hurt, saved = (outcomes[key] for key in (("none", "none"), (attack, "none"), (attack, defence)))
    assert free.metric is not None
    assert hurt.metric is not None
    assert saved.metric is not None
    assert saved.metric > free.metric - 0.06
    if "backdoor" in attack:
        assert hurt.measured.success is not None
        assert saved.measured.success is not None
        assert hurt.measured.success > 0.9
        assert saved.measured.success < 0.2
    else:
        assert hurt.metric < free.metric - 0.2
    assert saved.plain["worst"] > 0.6
