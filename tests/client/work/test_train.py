"""Local training without privacy, on numbers that fit on paper."""

import numpy as np
import pytest
import torch
from torch import nn

from fedsite.client.work.train import train
from fedsite.models import catalog, vector
from fedsite.privacy.sampling import SeededSource, SystemRandom
from fedsite.protocol.errors import DataError
from fedsite.protocol.plan import LocalPlan, PrivacyPlan
from fedsite.telemetry.dataset import Windows

NONE = PrivacyPlan()


class Weight(nn.Module):
    """Output w·x for one number x."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[start]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, :] @ self.w


def windows(x: list[float], y: list[float]) -> Windows:
    return Windows(
        x=np.array(x, dtype=np.float32).reshape(-1, 1, 1),
        y=np.array(y, dtype=np.float32).reshape(-1, 1),
        entity=np.zeros(len(x), dtype=np.int64),
        entities=("a",),
        time=np.arange(len(x)) * 1.0,
    )


def fit(
    module: nn.Module, data: Windows, *, round_number: int = 1, loss: str = "mse", seed: int | None = None, **local
):
    plan = LocalPlan(**{"steps": 1, "sampling_rate": 1.0, "learning_rate": 0.1, **local})
    return train(module, data, plan, NONE, loss, round_number=round_number, rng_seed=seed, source=SystemRandom())


def test_one_step_is_the_mean_gradient():
    """Gradient at 0 is -2·mean(x·y) = -2·(2 + 4)/2 = -6."""
    module = Weight()
    trained = fit(module, windows([1.0, 2.0], [2.0, 2.0]))
    assert module.w.item() == pytest.approx(0.6)
    assert (trained.steps, trained.examples) == (1, 2)
    assert trained.loss == pytest.approx(4.0)
    assert module.w.grad is None


def test_the_learning_rate_decays_with_the_round():
    module = Weight()
    fit(module, windows([1.0], [1.0]), round_number=3, learning_rate_decay=0.5)
    assert module.w.item() == pytest.approx(0.1 * 0.25 * 2.0)


def test_the_proximal_term_pulls_back_to_the_round_s_start():
    """Second step: gradient 2(w - 1) + μ(w - 0) at w = 0.2 with μ = 1: -1.6 + 0.2."""
    module = Weight()
    fit(module, windows([1.0], [1.0]), steps=2, proximal=1.0)
    assert module.w.item() == pytest.approx(0.2 + 0.14)


def test_momentum_and_adam_are_fresh_each_round():
    for options in ({"momentum": 0.9}, {"optimizer": "adam"}):
        first, second = Weight(), Weight()
        for module in (first, second):
            fit(module, windows([1.0], [1.0]), **options)
        assert first.w.item() == second.w.item() != 0.0


def test_frozen_parameters_stay():
    module = catalog.build("mlp", {"hidden": [3]}, time=1, features=1, outputs=1, seed=0)
    before = vector.state(module)
    names = vector.trainable(module, "head")
    fit(module, windows([1.0], [1.0]), steps=3)
    after = vector.state(module)
    assert {name for name in before if not np.array_equal(before[name], after[name])} == set(names)


def test_empty_batches_are_skipped_and_steps_still_count():
    module = Weight(0.5)
    trained = fit(module, windows([1.0], [1.0]), steps=3, sampling_rate=1e-9, seed=1)
    assert module.w.item() == 0.5
    assert trained.steps == 3
    assert np.isnan(trained.loss)


def test_a_seed_repeats_the_batches_and_rounds_differ():
    data = windows([1.0, 2.0, 3.0, 4.0] * 5, [1.0, -1.0, 2.0, 0.5] * 5)
    found = []
    for number in (1, 1, 2):
        module = Weight()
        fit(module, data, steps=5, sampling_rate=0.2, learning_rate=0.01, seed=3, round_number=number)
        found.append(module.w.item())
    assert found[0] == found[1] != found[2]


def test_reconstruction_learns_the_window_itself():
    module = nn.Linear(1, 1)
    before = (module(torch.ones(1, 1, 1)) - 1.0).abs().item()
    fit(module, windows([1.0], [999.0]), loss="reconstruction", steps=20)
    assert (module(torch.ones(1, 1, 1)) - 1.0).abs().item() < before


def test_classes_are_learned_from_integers():
    data = windows([-1.0, 1.0] * 10, [0.0, 1.0] * 10)
    labelled = Windows(
        x=data.x, y=np.array([0, 1] * 10, dtype=np.int64), entity=data.entity, entities=data.entities, time=data.time
    )
    module = catalog.build("mlp", {"hidden": []}, time=1, features=1, outputs=2, seed=0)
    fit(module, labelled, loss="cross_entropy", steps=50, learning_rate=1.0)
    predicted = module(torch.from_numpy(labelled.x)).argmax(1).numpy()
    assert np.array_equal(predicted, labelled.y)


def test_nothing_to_train_on_is_an_error_with_a_remedy():
    with pytest.raises(DataError, match="no training windows") as caught:
        fit(Weight(), windows([], []))
    assert "data check" in caught.value.next_step


def test_a_seeded_source_repeats_private_training_in_simulation():
    data = windows([1.0, 2.0], [1.0, 1.0])
    plan = LocalPlan(steps=3, sampling_rate=0.5)
    privacy = PrivacyPlan(mode="sample", noise_multiplier=1.0)
    found = []
    for _ in range(2):
        module = Weight()
        module.double().float()
        train(module, data, plan, privacy, "mse", round_number=1, source=SeededSource(5))
        found.append(module.w.item())
    assert found[0] == found[1]
