"""What a site makes of control variates: by hand on one weight, in real training, with noise, and what it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from fedsite.client.work import rounds as work
from fedsite.client.work.control import VARIATE, Control
from fedsite.client.work.train import train
from fedsite.models import vector
from fedsite.privacy.sampling import SeededSource, SystemRandom
from fedsite.protocol import weights
from fedsite.protocol.errors import IntegrityError
from fedsite.protocol.messages import CONTROL, DELTA, LOSS, WEIGHT
from fedsite.protocol.plan import CONTROLLED, LocalPlan, PrivacyPlan, ProtectionPlan, RoundPlan, StrategyPlan
from tests.client.work import test_rounds as rounds
from tests.client.work.test_train import Weight, windows

SHAPES = {"a": (2,), "b": ()}
COMMON = {"a": np.array([1.0, 2.0], np.float32), "b": np.array(3.0, np.float32)}
OWN = {"a": np.array([0.5, 0.0], np.float32), "b": np.array(1.0, np.float32)}
DELTAS = {DELTA + "a": np.array([0.4, -8.0], np.float32), DELTA + "b": np.array(0.0, np.float32)}


def plan(mode: str = "sealed", **local: Any) -> RoundPlan:
    """Rate 0.1 and two steps: an update over 0.2 is a mean gradient."""
    return dataclasses.replace(
        rounds.plan(local={"learning_rate": 0.1, **local}),
        schema=CONTROLLED,
        strategy=StrategyPlan(name="scaffold", control=True),
        protection=ProtectionPlan(mode=mode),  # type: ignore[arg-type]
    )


def read(common: Mapping[str, Any] = COMMON, own: Mapping[str, Any] | None = OWN) -> Control:
    kept = {} if own is None else {VARIATE: weights.encode(own)}
    return Control.read({CONTROL: weights.encode(common), **kept}, SHAPES)


def after(control: Control, asked: RoundPlan, deltas: Mapping[str, Any] = DELTAS) -> dict[str, Any]:
    return weights.decode(control.after(asked, deltas, 1), limit=1 << 20)


def test_by_hand() -> None:
    """c_i' = c_i − c − δ / (2 · 0.1): 0.5 − 1 − 2, 0 − 2 + 40, 1 − 3 − 0."""
    found = after(read(), plan())
    assert found["a"].tolist() == pytest.approx([-2.5, 38.0])
    assert float(found["b"]) == pytest.approx(-2.0)
    assert {name: value.tolist() for name, value in read().correction.items()} == {"a": [0.5, 2.0], "b": 2.0}
    # A second round of rate 0.05, and a site that has nothing yet.
    later = weights.decode(read(own=None).after(plan(learning_rate_decay=0.5), DELTAS, 2), limit=1 << 20)
    assert later["a"].tolist() == pytest.approx([-1 - 4, -2 + 80])


def test_an_update_counts_as_the_sum_takes_it() -> None:
    """Under a secure sum −8 is cut to the bound of −4; and what would not be finite stays."""
    assert after(read(), plan("secagg"))["a"].tolist() == pytest.approx([-2.5, -2 + 20.0])
    huge = {**DELTAS, DELTA + "a": np.array([3e38, 0.0], np.float32)}
    assert after(read(), plan(learning_rate=1e-6), huge)["a"].tolist() == pytest.approx([0.5, -2.0])


@pytest.mark.parametrize(
    "common",
    [
        {"a": COMMON["a"]},
        {**COMMON, "c": COMMON["b"]},
        {**COMMON, "a": np.ones(3, np.float32)},
        {**COMMON, "a": np.ones(2, np.float64)},
        {**COMMON, "a": np.array([1.0, np.nan], np.float32)},
        {**COMMON, "a": np.ones(1 << 16, np.float32)},
    ],
)
def test_what_is_not_of_these_parameters_is_refused(common: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        read(common)


def test_none_at_all_is_refused() -> None:
    with pytest.raises(IntegrityError, match="without control"):
        Control.read({VARIATE: weights.encode(OWN)}, SHAPES)


def test_each_step_is_corrected() -> None:
    """Gradient of (w − 1)² at 0 is −2; with 0.5 on top the first step goes to 0.15, the second one on from there."""
    module = Weight()
    local = LocalPlan(steps=2, sampling_rate=1.0, learning_rate=0.1)
    given = {"round_number": 1, "source": SystemRandom(), "correction": [torch.tensor([[0.5]])]}
    train(module, windows([1.0], [1.0]), local, PrivacyPlan(), "mse", **given)  # type: ignore[arg-type]
    assert module.w.item() == pytest.approx(0.15 - 0.1 * (2 * (0.15 - 1) + 0.5))


@pytest.mark.parametrize("proximal", [0.0, 0.3])
def test_no_correction_and_no_pull_train_as_without(proximal: float) -> None:
    """The very same bits: a correction of 0 is SGD, μ = 0 is FedAvg."""
    asked = plan(proximal=proximal)
    data, start = rounds.site(), rounds.weights()
    zeros = {name: np.zeros(value.shape, np.float32) for name, value in start.items()}
    found = [
        work.train_round(asked, data, start, rounds.SAME, False, SystemRandom(), 1, seed=1, correction=correction)
        for correction in (None, zeros)
    ]
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name])
    if not proximal:
        plain = work.train_round(
            rounds.plan(local={"learning_rate": 0.1}), data, start, rounds.SAME, False, SystemRandom(), 1, seed=1
        )
        assert all(np.array_equal(found[0][name], value) for name, value in plain.items() if name != WEIGHT)
        # How many windows a site has counts with FedAvg, and not here.
        assert (float(found[0][WEIGHT][0]), float(plain[WEIGHT][0])) == (1.0, 6.0)
        assert LOSS in found[0]


def test_the_correction_comes_after_the_noise_and_is_no_part_of_what_is_clipped() -> None:
    """With the same draws, two corrections differ in the update by just −K η times what they differ in."""
    asked = dataclasses.replace(plan(), privacy=PrivacyPlan(**rounds.private(clip=1e-6, noise_multiplier=1e-6)))
    start = rounds.weights()
    size = {name: np.full(value.shape, 100.0, np.float32) for name, value in start.items()}
    zeros = {name: np.zeros(value.shape, np.float32) for name, value in start.items()}
    found = [
        work.train_round(
            asked, rounds.site(), start, rounds.SAME, False, SeededSource(1), 1, simulated=True, correction=correction
        )
        for correction in (zeros, size)
    ]
    for name in start:
        apart = found[1][DELTA + name] - found[0][DELTA + name]  # type: ignore[operator]
        np.testing.assert_allclose(apart, -0.2 * 100.0, rtol=1e-4)


def test_corrections_are_in_the_order_of_the_model() -> None:
    module = rounds.module()
    names = vector.trainable(module, "all")
    arrays = {
        name: np.full(parameter.shape, place) for place, (name, parameter) in enumerate(module.named_parameters())
    }
    assert [float(value.flatten()[0]) for value in vector.ordered(module, arrays)] == list(range(len(names)))
