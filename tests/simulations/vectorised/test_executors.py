"""The gate: every executor gives the updates of the plain loop, and the plain loop those of a real site."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import pytest
from torch import Tensor, nn

from fedsite.client.work.train import train
from fedsite.models import vector
from fedsite.protocol.errors import ConfigError
from fedsite.simulations.vectorised import choice, compiled, schedule
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Epochs, Job, Layout
from fedsite.simulations.vectorised.loop import Loop
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.schedule import Chunk
from fedsite.simulations.vectorised.sums import Sum
from fedsite.telemetry.dataset import Windows
from tests.simulated_jobs import ENTITY, FEATURES, PRIVATE, Drawn, job, population, weights

PULLED = {"momentum": 0.9, "proximal": 0.3, "weight_decay": 0.01, "learning_rate_decay": 0.9}
RELU, LEAKY = ({"hidden": [6, 5], "activation": name} for name in ("relu", "leaky_relu"))
CODE = {"hidden": [5], "code": 3}
# What is trained, the labels it takes, and who can do it beside the loop.
JOBS: dict[str, tuple[Job, str, str]] = {
    "plain": (job(), "value", "compiled batched vmap"),
    "epochs": (job(epochs=Epochs(batch=4, count=2)), "value", "compiled batched vmap"),
    # Wider than two vectors, and than the tallest tile of the kernels.
    "wide": (job(options={"hidden": [70, 33]}, epochs=Epochs(batch=13)), "value", "compiled batched"),
    "momentum, FedProx, decay": (job("cross_entropy", options=RELU, local=PULLED), "class", "compiled batched vmap"),
    "events": (job("binary_cross_entropy", options=LEAKY, local=PULLED), "event", "compiled batched vmap"),
    "autoencoder": (job("reconstruction", "autoencoder", CODE), "class", "compiled batched vmap"),
    "linear": (job("cross_entropy", options={"hidden": []}), "class", "compiled batched vmap"),
    "private": (job("cross_entropy", options=RELU, privacy=PRIVATE), "class", "compiled batched vmap"),
    "private, pulled": (job(local=PULLED, privacy=PRIVATE), "value", "compiled batched vmap"),
    "private autoencoder": (job("reconstruction", "autoencoder", CODE, privacy=PRIVATE), "class", "compiled batched"),
    "private entities": (job(local=PULLED, privacy=ENTITY), "value", "batched"),
    "Adam": (job(local={"optimizer": "adam", "proximal": 0.1, "learning_rate": 0.02}), "value", "batched vmap"),
    "recurrent": (job(model="gru", options={"hidden": 5}, local=PULLED), "value", "vmap"),
    "private recurrent": (job(model="gru", options={"hidden": 5}, privacy=PRIVATE), "value", "vmap"),
    "head": (job(trainable="head"), "value", "vmap"),
}
PAIRS = [(name, executor) for name, (_, _, able) in JOBS.items() for executor in able.split()]


def update(executor: str, work: Job, people: Population, size: int = 3) -> Sum:
    """The sum of everybody's updates in round 2."""
    if executor == "compiled":
        pytest.importorskip("numba", reason="kernels need numba: pip install 'fedsite[fast]'")
    chosen = choice.choose(work, people, executor).executor
    assert chosen.name == executor
    total = Sum.empty(Layout.of(work.module()).size)
    for chunk in schedule.chunks(people, np.arange(len(people)), 2, size=size):
        chosen.update(Order(weights=weights(work)), chunk, total)
    return total


@pytest.mark.parametrize(("name", "executor"), PAIRS)
def test_every_executor_trains_like_the_loop(name: str, executor: str) -> None:
    work, target, _ = JOBS[name]
    people = population(target)
    wanted, found = update("loop", work, people), update(executor, work, people)
    assert (found.weight, found.sites) == (wanted.weight, wanted.sites)
    assert wanted.sites == 5
    # Adam divides a gradient by its own size: its rounding errors too.
    tolerance = 5e-5 if work.local.optimizer == "adam" else 1e-5
    assert np.linalg.norm(found.mean() - wanted.mean()) <= tolerance * np.linalg.norm(wanted.mean())


@pytest.mark.parametrize("name", ["plain", "momentum, FedProx, decay", "Adam", "private, pulled", "private entities"])
def test_the_loop_trains_like_a_real_site(name: str) -> None:
    work, target, _ = JOBS[name]
    people = population(target)
    site, own = 2, slice(*people.offsets[2:4])
    windows = Windows(
        x=people.x[own], y=people.y[own], entity=people.entity[own], entities=("a", "b", "c", "d"), time=np.zeros(29)
    )
    module = work.module()
    vector.load(module, weights(work))
    train(module, windows, work.local, work.privacy, work.loss, round_number=2, source=Drawn(work.seed, 2, site))
    layout = Layout.of(module)
    wanted = layout.flat(vector.state(module)) - layout.flat(weights(work))
    found = Sum.empty(layout.size)
    Loop(work, people).update(Order(weights=weights(work)), Chunk(round=2, sites=np.array([site])), found)
    assert np.linalg.norm(found.mean() - wanted) <= 1e-5 * np.linalg.norm(wanted)


def test_an_empty_batch_is_sat_out_unless_noise_is_due() -> None:
    rare = job(local={"sampling_rate": 1e-9, "momentum": 0.9, "weight_decay": 0.1})
    assert not update("batched", rare, population("value")).total.any()
    noise = dataclasses.replace(rare, privacy=PRIVATE)
    people = population("value")
    wanted, found = (update(name, noise, people).mean() for name in ("loop", "batched"))
    assert np.linalg.norm(found) > 0
    assert np.allclose(found, wanted, rtol=1e-4, atol=1e-7)


class Decided(nn.Module):
    """A model whose path depends on what it reads: nothing that can be mapped over sites."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x[:, 0])
        return y if y.sum() > 0 else -y


def test_a_model_that_cannot_be_traced_is_looped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "module", lambda self: Decided())
    found = choice.choose(job(), population("value"))
    assert found.executor.name == "loop"
    assert [name for name, _ in found.passed_over] == ["compiled", "batched", "vmap"]
    assert "torch.func cannot trace the model" in dict(found.passed_over)["vmap"]


@pytest.mark.parametrize("executor", ["compiled", "batched", "vmap"])
def test_training_that_diverges_is_told(executor: str) -> None:
    with pytest.raises(ConfigError, match="diverged in round 2"):
        update(executor, job(local={"learning_rate": 1000.0, "steps": 40}), population("value"))


def test_the_fastest_way_is_chosen_and_the_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    people = population("value")
    there = importlib.util.find_spec
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None if name == "numba" else there(name))
    found = choice.choose(job(), people)
    assert found.executor.name == "batched"
    assert found.passed_over == (("compiled", "numba is not installed (pip install 'fedsite[fast]')"),)
    private = choice.choose(job(model="gru", options={"hidden": 5}, privacy=ENTITY), people)
    assert private.executor.name == "loop"
    assert dict(private.passed_over)["vmap"] == "privacy.unit entity needs the gradient of several windows as one"
    with pytest.raises(ConfigError, match=r"executor batched cannot do this: model gru trained in all is not"):
        choice.choose(job(model="gru", options={"hidden": 5}), people, "batched")
    with pytest.raises(ConfigError, match=r"simulation\.executor is 'fast'"):
        choice.choose(job(), people, "fast")
