"""What leaves a site: the right values, noised with the right spread, and nothing that privacy leaves out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fedsite.client.work import judging
from fedsite.client.work import rounds as work
from fedsite.models import calibration, catalog, export, metrics, vector
from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.sampling import SeededSource, SystemRandom
from fedsite.protocol.errors import ConfigError, IntegrityError, PolicyError
from fedsite.protocol.plan import (
    LocalPlan,
    ModelPlan,
    PrivacyPlan,
    ProtectionPlan,
    ReleasePlan,
    RoundPlan,
    RoundsPlan,
    SitePrivacyPlan,
)
from fedsite.protocol.weights import encode
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.statistics import Normalisation, unit_bound
from fedsite.telemetry.task import read_task

TASK = {
    "schema": "fedsite.task/1",
    "name": "toy",
    "data": {"source": "file", "file": "toy.csv", "format": "csv", "entity": "machine", "time": "t"},
    "channels": [
        {"name": "a", "unit": "1", "minimum": -1.0, "maximum": 1.0},
        {"name": "b", "unit": "1", "minimum": 0.0, "maximum": 10.0},
    ],
    "window": {"length": 2},
    "label": {"kind": "column", "column": "y", "maximum": 10, "scale": 10},
    "split": {"kind": "column", "column": "split", "train": "train", "holdout": "test"},
    "model": {"name": "mlp", "options": {"hidden": [3]}},
    "loss": "mse",
    "metric": {"name": "rmse", "better": "lower", "unit": "1", "maximum": 10},
}
SAME = Normalisation(mean=np.zeros(2, np.float32), scale=np.ones(2, np.float32))


def plan(privacy: dict | None = None, *, trainable: str = "all", local: dict | None = None, **rounds) -> RoundPlan:
    return RoundPlan(
        federation="00",
        run_id="r",
        created="",
        task=read_task(TASK).document,
        model=ModelPlan(name="mlp", options={"hidden": [3]}, trainable=trainable),
        local=LocalPlan(**{"steps": 2, "sampling_rate": 0.5, **(local or {})}),
        privacy=PrivacyPlan(**(privacy or {})),
        rounds=RoundsPlan(**{"count": 3, **rounds}),
        release=ReleasePlan(),
    )


def private(**more) -> dict:
    return {"mode": "sample", "noise_multiplier": 1.0, **more}


def site(count: int = 6) -> SiteData:
    rng = np.random.default_rng(1)
    x = np.stack([rng.uniform(-1, 1, (count, 2)), rng.uniform(0, 10, (count, 2))], axis=-1).astype(np.float32)
    windows = Windows(
        x=x,
        y=np.linspace(0, 10, count).astype(np.float32),
        entity=np.array([0] * (count - 2) + [1, 1], dtype=np.int64),
        entities=("m0", "m1"),
        time=np.arange(count) * 1.0,
    )
    return SiteData(
        train=windows,
        holdout=windows,
        features=("a", "b"),
        minimum=np.array([-1, 0], np.float32),
        maximum=np.array([1, 10], np.float32),
        overlap=2,
    )


def module():
    return catalog.build("mlp", {"hidden": [3]}, time=2, features=2, outputs=1, seed=0)


def weights() -> dict:
    return vector.state(module())


def test_without_privacy_the_update_is_the_difference_of_weights():
    found = work.train_round(plan(), site(), weights(), SAME, False, SystemRandom(), 1, seed=1)
    again = work.train_round(plan(), site(), weights(), SAME, False, SystemRandom(), 1, seed=1)
    assert sorted(found) == sorted([*(f"delta/{name}" for name in weights()), "weight", "loss"])
    assert found["weight"].tolist() == [6.0]
    assert np.isfinite(found["loss"]).all()
    assert all(np.array_equal(found[name], again[name]) for name in found)
    assert any(np.any(found[f"delta/{name}"]) for name in weights())


def test_with_privacy_only_the_noised_update_and_a_constant_leave():
    found = work.train_round(plan(private()), site(), weights(), SAME, True, SystemRandom(), 1)
    assert sorted(found) == sorted([*(f"delta/{name}" for name in weights()), "weight"])
    assert found["weight"].tolist() == [1.0]


def test_only_trained_parameters_are_in_the_update():
    found = work.train_round(plan(trainable="head"), site(), weights(), SAME, False, SystemRandom(), 1)
    assert sorted(name for name in found if name.startswith("delta/")) == [
        "delta/layers.2.bias",
        "delta/layers.2.weight",
    ]


def test_evaluation_judges_the_incoming_model():
    found = work.train_round(plan(), site(), weights(), SAME, True, SystemRandom(), 2)
    alone = work.evaluate(plan(), site(), weights(), SAME, SystemRandom())
    assert {name: found[name].tolist() for name in alone} == {name: array.tolist() for name, array in alone.items()}
    data = site().holdout
    predicted = judging.predict(module(), data.x)[:, 0] * 10.0
    rmse = math.sqrt(float(np.mean(np.minimum(np.abs(predicted - data.y), 10.0) ** 2)))
    sums = {name.removeprefix("evaluation/"): array for name, array in alone.items()}
    assert metrics.value(read_task(TASK).metric, sums) == pytest.approx(rmse, rel=1e-5)


@pytest.mark.parametrize(("unit", "count"), [("window", 6.0), ("entity", 2.0)])
def test_evaluation_noise_has_the_claimed_spread_and_counts_units_once(unit, count):
    privacy = private(evaluation_noise=3.0, unit=unit)
    source = SeededSource(1)
    found = [
        work.evaluate(plan(privacy), site(), weights(), SAME, source, simulated=True)["evaluation/count"][0]
        for _ in range(100)
    ]
    spread = 3.0 * metrics.sensitivity(read_task(TASK).metric)
    assert np.std(found) == pytest.approx(spread, rel=0.3)
    assert np.mean(found) == pytest.approx(count, abs=5 * spread / math.sqrt(100))


def test_statistics_without_privacy_are_exact():
    found = work.statistics(plan(), site(), SystemRandom())
    x = site().train.x
    assert found["statistics/count"].tolist() == [6.0]
    assert found["statistics/sum"] == pytest.approx(
        [x[..., 0].mean(1).sum(), ((x[..., 1] - 5) / 5).mean(1).sum()], rel=1e-4
    )


def test_private_statistics_are_left_out_or_noised():
    assert work.statistics(plan(private()), site(), SystemRandom()) == {}
    for unit, count in (("window", 6.0), ("entity", 2.0)):
        asked = plan(private(statistics_noise=2.0, unit=unit))
        source = SeededSource(2)
        found = np.array(
            [
                np.concatenate([array for _, array in sorted(values.items())])
                for values in (work.statistics(asked, site(), source, simulated=True) for _ in range(200))
            ]
        )
        assert found.std(axis=0) == pytest.approx(np.full(5, 2.0 * unit_bound(2)), rel=0.25)
        assert count / 2 < found[:, 0].mean() < count + 0.5  # units beyond the bound weigh less


def test_readings_outside_the_schema_cannot_exceed_their_bound():
    data = site()
    wild = SiteData(
        train=Windows(
            x=data.train.x * 1e6,
            y=data.train.y,
            entity=data.train.entity,
            entities=data.train.entities,
            time=data.train.time,
        ),
        holdout=data.holdout,
        features=data.features,
        minimum=data.minimum,
        maximum=data.maximum,
        overlap=2,
    )
    found = work.statistics(plan(), wild, SystemRandom())
    assert np.all(np.abs(found["statistics/sum"]) <= 6.0)
    assert np.all(found["statistics/square"] <= 6.0)


@pytest.mark.parametrize(("unit", "units"), [("window", 6), ("entity", 2)])
def test_calibration_counts_each_unit_once(unit, units):
    graph, names = calibration.with_taps(export.to_onnx(module(), 2, 2))
    exact = work.calibrate(plan(), site(), graph, SAME, names, SystemRandom())
    assert exact["calibration/positive"].shape == (len(names), calibration.BINS)
    assert np.all(exact["calibration/positive"].sum(axis=1) >= 1.0)
    noised = work.calibrate(
        plan(private(calibration_noise=1e-3, unit=unit)), site(), graph, SAME, names, SeededSource(1), simulated=True
    )
    assert np.rint(noised["calibration/negative"]).sum(axis=1).tolist() == [float(units)] * len(names)
    assert not np.array_equal(noised["calibration/negative"], np.rint(noised["calibration/negative"]))


def test_private_data_is_not_read_without_noise():
    with pytest.raises(PolicyError, match="evaluation"):
        work.evaluate(plan(private()), site(), weights(), SAME, SystemRandom())
    with pytest.raises(PolicyError, match="calibration"):
        work.calibrate(plan(private()), site(), b"", SAME, [], SystemRandom())


def test_a_real_site_refuses_seeded_noise():
    asked = plan(private(statistics_noise=1.0, evaluation_noise=1.0, calibration_noise=1.0))
    source = SeededSource(1)
    for call in (
        lambda: work.statistics(asked, site(), source),
        lambda: work.train_round(asked, site(), weights(), SAME, False, source, 1),
        lambda: work.evaluate(asked, site(), weights(), SAME, source),
        lambda: work.calibrate(asked, site(), b"", SAME, [], source),
    ):
        with pytest.raises(PrivacyError, match="seeded"):
            call()


def test_a_plan_s_seed_never_repeats_private_noise():
    found = [
        work.train_round(plan(private()), site(), weights(), SAME, False, SystemRandom(), 1, seed=1) for _ in range(2)
    ]
    assert not np.array_equal(found[0]["delta/layers.0.weight"], found[1]["delta/layers.0.weight"])


def test_divergence_is_named_with_its_remedy():
    with pytest.raises(ConfigError, match="diverged") as caught:
        work.train_round(
            plan(local={"learning_rate": 1000.0, "steps": 200, "sampling_rate": 1.0}), site(), weights(), SAME, False,
            SystemRandom(), 1,
        )  # fmt: skip
    assert "learning_rate" in caught.value.next_step


def test_divergence_under_privacy_says_nothing():
    """Whether weights overflow depends on the noise that was drawn: told by a code, it would be a release for free."""
    largest = {name: np.full_like(array, np.finfo(np.float32).max) for name, array in weights().items()}
    steep = plan(private(), local={"learning_rate": 1000.0, "weight_decay": 1000.0, "steps": 20})
    for given in (weights(), largest):
        values = work.train_round(steep, site(), given, SAME, False, SystemRandom(), 1)
        assert set(values) == {"weight", *(f"delta/{name}" for name in given)}
        assert all(np.isfinite(array).all() for array in values.values())
        assert encode(values)


def test_weights_of_another_model_are_refused():
    other = vector.state(catalog.build("mlp", {"hidden": [4]}, time=2, features=2, outputs=1, seed=0))
    with pytest.raises(IntegrityError):
        work.train_round(plan(), site(), other, SAME, False, SystemRandom(), 1)


def per_site(mode: str = "site", **more) -> RoundPlan:
    noised = {"noise_multiplier": 1.0} if mode == "both" else {}
    found = plan()
    privacy = PrivacyPlan(mode=mode, **noised, **more, site=SitePrivacyPlan(noise_multiplier=3.0))
    return replace(found, privacy=privacy, protection=ProtectionPlan(), model=replace(found.model, parameters=19))


def test_a_site_is_one_unit_of_the_sums_where_noise_is_in_the_sum():
    """All of its windows together are one: averaged in statistics and evaluation, one count a histogram."""
    asked = per_site(statistics_noise=5.0, evaluation_noise=5.0, calibration_noise=5.0)
    data = site(8)
    statistics, plain = (work.statistics(one, data, SystemRandom()) for one in (asked, plan()))
    for name, array in plain.items():
        np.testing.assert_allclose(statistics[name], array / 8)
    judged = work.evaluate(asked, data, weights(), SAME, SystemRandom())
    everybody = work.evaluate(plan(), data, weights(), SAME, SystemRandom())
    np.testing.assert_allclose(judged["evaluation/count"], [1.0])
    count = everybody["evaluation/count"]
    np.testing.assert_allclose(judged["evaluation/error"], everybody["evaluation/error"] / count)
    graph, tensors = calibration.with_taps(export.to_onnx(module(), 2, 2))
    counted = work.calibrate(asked, data, graph, SAME, tensors, SystemRandom())
    assert all(array.sum(axis=-1).tolist() == [1.0] * len(tensors) for array in counted.values())


def test_an_update_of_a_site_that_is_one_unit_tells_no_number():
    """Plain training: neither windows nor loss leave, and the noise is the sum's."""
    values = work.train_round(per_site(), site(), weights(), SAME, False, SystemRandom(), 1)
    assert set(values) == {"weight", *(f"delta/{name}" for name in weights())}
    assert values["weight"] == [1.0]
    plain = work.train_round(plan(), site(), weights(), SAME, False, SeededSource(1), 1, seed=3)
    assert max(np.abs(values[name]).max() for name in values if name != "weight") < 10 * max(
        np.abs(plain[name]).max() for name in plain if name.startswith("delta/")
    )


def test_nothing_that_has_no_noise_is_read_for_a_sum():
    assert work.statistics(per_site(), site(), SystemRandom()) == {}
    with pytest.raises(PolicyError, match="evaluation"):
        work.evaluate(per_site(), site(), weights(), SAME, SystemRandom())
