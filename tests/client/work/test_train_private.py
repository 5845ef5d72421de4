"""DP-SGD against hand-made gradients, and formulas against autograd through whole steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedsite.client.work import train_private
from fedsite.client.work.train import train
from fedsite.models import catalog, clipped_sums, vector
from fedsite.privacy import clipping, sampling
from fedsite.privacy.sampling import SeededSource, SystemRandom
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import LocalPlan, PrivacyPlan
from fedsite.telemetry.dataset import Windows
from tests.broken_sources import Scaled


class Mean(nn.Module):
    """One weight per feature, output w·x: its squared error has gradients that fit on paper."""

    def __init__(self, features: int = 1) -> None:
        super().__init__()
        self.layer = nn.Linear(features, 1, bias=False)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[:, 0, :])


def windows(x: list[list[float]], y: list[float], entity: list[int] | None = None) -> Windows:
    values = np.array(x, dtype=np.float32).reshape(len(y), 1, -1)
    numbers = np.array(entity if entity is not None else range(len(y)), dtype=np.int64)
    names = tuple(str(number) for number in range(int(numbers.max(initial=0)) + 1))
    return Windows(
        x=values, y=np.array(y, dtype=np.float32)[:, None], entity=numbers, entities=names, time=np.arange(len(y)) * 1.0
    )


def step(
    data: Windows, source: sampling.Source, *, q: float = 1.0, features: int = 1, steps: int = 1, **privacy
) -> np.ndarray:
    """Weights after `steps` of size 1 from zero: minus the noised gradient."""
    module = Mean(features)
    local = LocalPlan(steps=steps, sampling_rate=q, learning_rate=1.0)
    plan = PrivacyPlan(mode="sample", **{"noise_multiplier": 1.0, "batch": 1.0, **privacy})
    train(module, data, local, plan, "mse", round_number=1, source=source)
    return module.layer.weight.detach().numpy()[0].copy()


def test_the_clipped_sum_is_divided_by_the_public_batch():
    """Gradients at 0 are -2·x·y: -2, -0.4 and -40. Clipped at 1: -1, -0.4, -1; over 4: a step of 0.6."""
    data = windows([[1.0], [1.0], [10.0]], [1.0, 0.2, 2.0])
    assert step(data, Scaled(0.0, SystemRandom()), batch=4.0)[0] == pytest.approx(0.6, abs=1e-5)


def test_an_entity_counts_once_however_many_windows_it_has():
    """Entity 0: mean of -2, -2, -2; entity 1: -0.4. Clipped at 1: -1, -0.4."""
    data = windows([[1.0]] * 4, [1.0, 1.0, 1.0, 0.2], entity=[0, 0, 0, 1])
    assert step(data, Scaled(0.0, SystemRandom()), unit="entity")[0] == pytest.approx(1.4, abs=1e-5)
    assert step(data, Scaled(0.0, SystemRandom()), unit="window")[0] == pytest.approx(3.4, abs=1e-5)


def test_a_gradient_that_overflows_counts_for_nothing():
    data = windows([[1.0], [3e38], [np.inf]], [0.2, 3e38, 1.0])
    found = step(data, Scaled(0.0, SystemRandom()), clip=1.0)
    assert found[0] == pytest.approx(1.4, abs=1e-4) or found[0] == pytest.approx(0.4, abs=1e-4)


@pytest.mark.parametrize("unit", ["window", "entity"])
def test_an_empty_sample_is_a_step_of_pure_noise(unit):
    data = windows([[1.0]], [1.0])
    source = SeededSource(1)  # so that a spread is inside its bounds always, not nearly always
    found = [step(data, source, q=1e-9, features=1, clip=0.5, unit=unit)[0] for _ in range(400)]
    assert np.std(found) == pytest.approx(0.5, rel=0.15)
    nobody = data.take(np.zeros(0, dtype=np.int64))
    assert step(nobody, source, unit=unit)[0] != 0.0


def test_noise_is_sigma_times_clip_over_batch_in_every_coordinate():
    data = windows([[0.0] * 4000], [0.0])
    found = step(data, SeededSource(1), features=4000, clip=2.0, noise_multiplier=3.0, batch=10.0)
    assert found.std() == pytest.approx(0.6, rel=0.05)
    assert abs(found.mean()) < 0.05


@pytest.mark.parametrize(
    ("name", "options", "time", "features"),
    [
        ("mlp", {"hidden": [5]}, 4, 3),
        ("cnn1d", {}, 16, 3),
        ("gru", {}, 5, 3),
        ("tcn", {}, 16, 3),
    ],
)
def test_every_kind_of_layer_gives_the_sum_of_its_clipped_gradients(name, options, time, features):
    module = catalog.build(name, options, time=time, features=features, outputs=1, seed=1)
    rng = np.random.default_rng(0)
    data = Windows(
        x=rng.normal(size=(6, time, features)).astype(np.float32),
        y=rng.normal(size=(6, 1)).astype(np.float32),
        entity=np.arange(6),
        entities=tuple("abcdef"),
        time=np.arange(6.0),
    )
    start = vector.flatten(vector.state(module))
    expected = np.zeros_like(start)
    for row in range(6):
        module.zero_grad()
        (
            module(torch.from_numpy(data.x[row : row + 1])) - torch.from_numpy(data.y[row : row + 1])
        ).square().sum().backward()
        gradient = vector.flatten({key: value.grad.numpy() for key, value in module.named_parameters()})
        expected += clipping.clip_rows(gradient[None], 0.5)[0]
    module.zero_grad()
    plan = PrivacyPlan(mode="sample", clip=0.5, batch=6.0, noise_multiplier=1e-6)
    local = LocalPlan(steps=1, sampling_rate=1.0, learning_rate=1.0)
    train(module, data, local, plan, "mse", round_number=1, source=SystemRandom())
    assert start - vector.flatten(vector.state(module)) == pytest.approx(expected / 6.0, abs=2e-5)
    assert not any(hasattr(parameter, "grad_sample") for parameter in module.parameters())


@pytest.mark.parametrize("unit", ["window", "entity"])
@pytest.mark.parametrize(
    ("name", "options", "loss"),
    [
        ("mlp", {"hidden": [5]}, "mse"),
        ("autoencoder", {"hidden": [5], "code": 2}, "reconstruction"),
        ("cnn1d", {}, "cross_entropy"),
        ("cnn2d", {}, "cross_entropy"),
        ("conv_autoencoder", {}, "reconstruction"),
        ("tcn", {}, "mse"),
        ("gru", {}, "binary_cross_entropy"),
    ],
)
def test_formulas_and_autograd_end_at_the_same_weights(monkeypatch, name, options, loss, unit):
    """Several noised steps from one seed: the draws are the same ones in the same order."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40) if loss == "cross_entropy" else rng.integers(0, 2, (40, 1)).astype(np.float32)
    data = Windows(
        x=rng.normal(size=(40, 8, 3)).astype(np.float32),
        y=labels,
        entity=np.sort(rng.integers(0, 6, 40)),
        entities=tuple("abcdef"),
        time=np.arange(40.0),
    )
    outputs = 2 if loss == "cross_entropy" else 1
    monkeypatch.setattr(train_private, "ENTITY_WINDOWS", 5)
    ends = []
    for supported in (True, False):
        module = catalog.build(name, options, time=8, features=3, outputs=outputs, seed=1)
        assert clipped_sums.supported(module)
        plan = PrivacyPlan(mode="sample", unit=unit, clip=0.3, batch=5.0, noise_multiplier=0.1)
        local = LocalPlan(steps=3, sampling_rate=0.4, learning_rate=0.5)
        with monkeypatch.context() as patch:
            if not supported:
                patch.setattr(clipped_sums, "supported", lambda module: False)
            train(module, data, local, plan, loss, round_number=1, source=SeededSource(7))
        ends.append(vector.flatten(vector.state(module)))
    # The grid of the noise hides all but the rarest rounding.
    assert np.abs(ends[0] - ends[1]).max() <= 1e-6 * np.abs(ends[0]).max()


def test_only_the_chosen_parameters_move():
    module = catalog.build("mlp", {"hidden": [5]}, time=1, features=2, outputs=1, seed=1)
    before = vector.state(module)
    names = vector.trainable(module, "head")
    plan = PrivacyPlan(mode="sample", noise_multiplier=1.0)
    local = LocalPlan(steps=2, sampling_rate=1.0, learning_rate=1.0)
    train(module, windows([[1.0, 2.0]], [1.0]), local, plan, "mse", round_number=1, source=SeededSource(1))
    after = vector.state(module)
    assert {name for name in before if not np.array_equal(before[name], after[name])} == set(names)


def test_layers_that_mix_records_are_refused():
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2), nn.Linear(2, 1))
    plan = PrivacyPlan(mode="sample", noise_multiplier=1.0)
    with pytest.raises(ConfigError, match="cannot train"):
        train(
            module,
            windows([[1.0, 2.0]], [1.0]),
            LocalPlan(steps=1, sampling_rate=1.0),
            plan,
            "mse",
            round_number=1,
            source=SystemRandom(),
        )


def test_torch_s_own_random_state_is_neither_used_nor_moved():
    data = windows([[1.0] * 8, [2.0] * 8], [1.0, 0.5])
    torch.manual_seed(0)
    first = step(data, SystemRandom(), q=0.5, features=8)
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    second = step(data, SystemRandom(), q=0.5, features=8)
    assert not np.array_equal(first, second)
    assert torch.equal(state, torch.random.get_rng_state())
