"""The int8 model on a site's holdout: the same sums as fp32's, and nothing under privacy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedsite.client.work import parity
from fedsite.client.work import rounds as work
from fedsite.models import catalog, export, metrics, vector
from fedsite.models.quantize import quantize
from fedsite.privacy.sampling import SystemRandom
from fedsite.protocol.errors import IntegrityError, PolicyError
from fedsite.protocol.plan import LocalPlan, ModelPlan, PrivacyPlan, RoundPlan, RoundsPlan
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.statistics import Normalisation

OPTIONS: dict[str, Any] = {"hidden": [4], "activation": "tanh"}
SAME = Normalisation(mean=np.zeros(2, np.float32), scale=np.ones(2, np.float32))


def plan(privacy: PrivacyPlan, *, reconstruction: bool = False) -> RoundPlan:
    task: dict[str, Any] = {
        "schema": "fedsite.task/1",
        "name": "toy",
        "data": {"source": "synthetic", "generator": "pump"},
        "channels": [{"name": name, "minimum": -3.0, "maximum": 3.0} for name in "ab"],
        "window": {"length": 3},
        "label": {"kind": "self", "column": "y"} if reconstruction else {"kind": "column", "column": "y", "scale": 10},
        "split": {"kind": "time"},
        "model": {"name": "autoencoder" if reconstruction else "mlp"},
        "loss": "reconstruction" if reconstruction else "mse",
        "metric": {"name": "f1_at_threshold", "better": "higher"}
        if reconstruction
        else {"name": "rmse", "better": "lower", "maximum": 10.0},
    }
    return RoundPlan(
        federation="0" * 32,
        run_id="r",
        created="",
        task=task,
        model=ModelPlan(name=task["model"]["name"], options={} if reconstruction else OPTIONS),
        local=LocalPlan(steps=1, sampling_rate=0.5),
        privacy=privacy,
        rounds=RoundsPlan(count=1),
    )


def site(*, anomalies: bool = False) -> SiteData:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3, 2)).astype(np.float32)
    y: Any = rng.uniform(0, 10, 40).astype(np.float32)
    if anomalies:
        y = np.zeros(40, np.int64)
        x[:5] = 3.0
        y[:5] = 1
    windows = Windows(x=x, y=y, entity=np.zeros(40, np.int64), entities=("e",), time=np.arange(40.0))
    return SiteData(
        train=windows, holdout=windows, features=("a", "b"), minimum=np.full(2, -3, np.float32),
        maximum=np.full(2, 3, np.float32), overlap=1,
    )  # fmt: skip


@pytest.mark.parametrize("reconstruction", [False, True])
def test_int8_sums_are_twins_of_fp32s(reconstruction: bool) -> None:
    asked, data = plan(PrivacyPlan(), reconstruction=reconstruction), site(anomalies=reconstruction)
    name, options = asked.model.name, asked.model.options
    module = catalog.build(name, options, time=3, features=2, outputs=2 if reconstruction else 1, seed=0)
    graph = quantize(export.to_onnx(module, 3, 2))
    fp32 = work.evaluate(asked, data, vector.state(module), SAME, SystemRandom())
    int8 = parity.sums(asked, data, graph, SAME)
    assert {key.replace("parity/", "evaluation/"): value.shape for key, value in int8.items()} == {
        key: value.shape for key, value in fp32.items()
    }
    metric = asked.task["metric"]
    before = metrics.value(metric, {key.partition("/")[2]: value for key, value in fp32.items()})  # type: ignore[misc]
    after = metrics.value(metric, {key.partition("/")[2]: value for key, value in int8.items()})  # type: ignore[misc]
    assert before is not None
    assert after == pytest.approx(before, rel=0.1)


def test_never_under_privacy() -> None:
    private = plan(PrivacyPlan(mode="sample", noise_multiplier=1.0, evaluation_noise=5.0))
    with pytest.raises(PolicyError):
        parity.sums(private, site(), b"", SAME)


def test_what_is_not_a_model_is_refused() -> None:
    with pytest.raises(IntegrityError):
        parity.sums(plan(PrivacyPlan()), site(), b"not a model", SAME)
