"""The gate: every executor gives the updates of the plain loop, and the plain loop those of a real site."""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsite.client.work.train import train
from fedsite.models import vector
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import ModelPlan
from fedsite.simulations.vectorised import choice, compiled, schedule
from fedsite.simulations.vectorised.controls import Controls
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Epochs, Job, Layout
from fedsite.simulations.vectorised.loop import Loop
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.schedule import Chunk
from fedsite.simulations.vectorised.sums import Sum
from fedsite.telemetry.dataset import Windows
from tests.simulated_jobs import BOTH, ENTITY, FEATURES, PRIVATE, Drawn, job, population, secured, weights

PULLED = {"momentum": 0.9, "proximal": 0.3, "weight_decay": 0.01, "learning_rate_decay": 0.9}
RELU, LEAKY = ({"hidden": [6, 5], "activation": name} for name in ("relu", "leaky_relu"))
CODE = {"hidden": [5], "code": 3}
# What is trained, the labels it takes, and who does it beside the loop (vmap where it takes a path of its own).
JOBS: dict[str, tuple[Job, str, str]] = {
    "plain": (job(), "value", "compiled batched vmap"),
    "epochs": (job(epochs=Epochs(batch=4, count=2)), "value", "compiled batched vmap"),
    "pulled": (job(local=PULLED), "value", ""),
    # Wider than two vectors, and than the tallest tile of the kernels.
    "wide": (job(options={"hidden": [70, 33]}, epochs=Epochs(batch=13)), "value", "compiled batched"),
    "momentum, FedProx, decay": (job("cross_entropy", options=RELU, local=PULLED), "class", "compiled batched vmap"),
    "events": (job("binary_cross_entropy", options=LEAKY, local=PULLED), "event", "compiled batched"),
    "autoencoder": (job("reconstruction", "autoencoder", CODE), "class", "compiled batched"),
    "linear": (job("cross_entropy", options={"hidden": []}), "class", "compiled batched"),
    "private": (job("cross_entropy", options=RELU, privacy=PRIVATE), "class", "compiled batched vmap"),
    "private, pulled": (job(local=PULLED, privacy=PRIVATE), "value", "compiled batched vmap"),
    "private autoencoder": (job("reconstruction", "autoencoder", CODE, privacy=PRIVATE), "class", "compiled batched"),
    "private entities": (job(local=PULLED, privacy=ENTITY), "value", "batched vmap"),
    "Adam": (job(local={"optimizer": "adam", "proximal": 0.1, "learning_rate": 0.02}), "value", "batched vmap"),
    "recurrent": (job(model="gru", options={"hidden": 5}, local=PULLED), "value", "compiled vmap"),
    "recurrent, two layers": (job(model="gru", options={"hidden": 5, "layers": 2}), "value", "compiled"),
    "private recurrent": (
        job(model="gru", options={"hidden": 17, "layers": 2}, privacy=PRIVATE),
        "value",
        "compiled vmap",
    ),
    "head": (job(trainable="head"), "value", "vmap"),
    # Control variates and gains are not the job's: `update` adds them where the name asks for it.
    "SCAFFOLD": (job(local={"proximal": 0.3, "weight_decay": 0.01}), "value", "compiled batched vmap"),
    "SCAFFOLD, private": (job(privacy=PRIVATE), "value", "compiled batched"),
    "clipped in both ways, gains": (secured(BOTH, local=PULLED), "value", "compiled batched vmap"),
}
PAIRS = [(name, executor) for name, (_, _, able) in JOBS.items() for executor in able.split()]

# Each of these alone, for every model and executor.
OPTIONS: dict[str, Job] = {
    "sgd": job(),
    "momentum": job(local={"momentum": 0.9}),
    "FedProx": job(local={"proximal": 0.3}),
    "weight decay": job(local={"weight_decay": 0.1}),
    "Adam": job(local={"optimizer": "adam", "learning_rate": 0.02}),
    "Adam, FedProx, decay": job(
        local={"optimizer": "adam", "learning_rate": 0.02, "proximal": 0.3, "weight_decay": 0.1}
    ),
    "epochs, ragged": job(epochs=Epochs(batch=4, count=2)),
    "SCAFFOLD": job(),
    "SCAFFOLD, DP-SGD": job(privacy=PRIVATE),
    "DP-SGD by window": job(privacy=PRIVATE),
    "DP-SGD by entity": job(privacy=ENTITY),
    "site clip": secured(),
    "both clips, momentum, gains": secured(BOTH, local={"momentum": 0.9}),
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("mlp", RELU),
    "autoencoder": ("autoencoder", CODE),
    "gru": ("gru", {"hidden": 5}),
    "cnn1d": ("cnn1d", {"channels": [4], "kernel": 3, "stride": 1}),
}


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a round, and the sites' new control variates."""

    total: Sum
    rows: NDArray[np.float32] | None


def update(executor: str, work: Job, people: Population, name: str = "", size: int = 3) -> Trained:
    """The sum of everybody's updates in round 2."""
    if executor == "compiled":
        pytest.importorskip("numba", reason="kernels need numba: pip install 'fedsite[fast]'")
    chosen = choice.choose(work, people, executor).executor
    assert chosen.name == executor
    numbers, everybody = Layout.of(work.module()).size, np.arange(len(people))
    total, rng = Sum.empty(numbers), np.random.default_rng(5)
    gains = np.array([1, -1, 0.5, 0, 2], np.float32) if "gains" in name else None
    with tempfile.TemporaryDirectory() as folder:
        order, kept = Order(weights=weights(work)), None
        if "SCAFFOLD" in name:
            kept = Controls.create(Path(folder) / "controls", len(people), numbers)
            kept.write(everybody, rng.standard_normal((len(people), numbers), np.float32))
            order = dataclasses.replace(order, control=rng.standard_normal(numbers, np.float32), controls=kept)
        for chunk in schedule.chunks(people, everybody, 2, size=size, gains=gains):
            chosen.update(order, chunk, total)
        return Trained(total, None if kept is None else kept.rows(everybody))


@cache
def looped(name: str) -> Trained:
    """The oracle's."""
    return update("loop", JOBS[name][0], population(JOBS[name][1]), name)


def compare(found: Trained, wanted: Trained, work: Job) -> None:
    assert (found.total.weight, found.total.sites) == (wanted.total.weight, wanted.total.sites)
    assert wanted.total.sites == 5
    # Adam divides a gradient by its own size: its rounding errors too.
    tolerance = 5e-5 if work.local.optimizer == "adam" else 1e-5
    close(found.total.mean(), wanted.total.mean(), tolerance)
    if wanted.rows is not None:
        assert found.rows is not None
        close(found.rows, wanted.rows, tolerance)


def close(found: NDArray[np.floating], wanted: NDArray[np.floating], tolerance: float) -> None:
    assert np.linalg.norm(wanted) > 0
    assert np.linalg.norm(found - wanted) <= tolerance * np.linalg.norm(wanted)


@pytest.mark.parametrize(("name", "executor"), PAIRS)
def test_every_executor_trains_like_the_loop(name: str, executor: str) -> None:
    work, target, _ = JOBS[name]
    compare(update(executor, work, population(target), name), looped(name), work)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["compiled", "batched", "vmap"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", OPTIONS)
def test_every_executor_does_what_it_can_do_as_the_loop_does_it(name: str, model: str, executor: str) -> None:
    kind, options = MODELS[model]
    loss = "reconstruction" if model == "autoencoder" else "cross_entropy"
    work = dataclasses.replace(OPTIONS[name], model=ModelPlan(name=kind, options=options), loss=loss, outputs=4)
    people = population("class")
    try:
        choice.choose(work, people, executor)
    except ConfigError as error:
        pytest.skip(str(error))
    compare(update(executor, work, people, name), update("loop", work, people, name), work)


@pytest.mark.parametrize("executor", ["loop", "batched", "vmap"])
def test_a_site_ends_in_the_same_place_alone(executor: str) -> None:
    people, work = population("value"), job(local=PULLED)
    compare(update(executor, work, people, size=1), looped("pulled"), work)


REAL = ("plain", "momentum, FedProx, decay", "Adam", "private, pulled", "private entities", "SCAFFOLD, private")


@pytest.mark.parametrize("name", REAL)
def test_the_loop_trains_like_a_real_site(name: str, tmp_path: Path) -> None:
    work, target, _ = JOBS[name]
    people = population(target)
    site, own = 2, slice(*people.offsets[2:4])
    windows = Windows(
        x=people.x[own], y=people.y[own], entity=people.entity[own], entities=("a", "b", "c", "d"), time=np.zeros(29)
    )
    module = work.module()
    vector.load(module, weights(work))
    layout, order = Layout.of(module), Order(weights=weights(work))
    shift: list[Tensor] = []
    if "SCAFFOLD" in name:
        control = np.random.default_rng(5).standard_normal(layout.size, np.float32)
        kept = Controls.create(tmp_path / "controls", len(people), layout.size)
        order = dataclasses.replace(order, control=control, controls=kept)
        shift = [torch.from_numpy(part) for part in layout.named(control).values()]
    train(
        module,
        windows,
        work.local,
        work.privacy,
        work.loss,
        round_number=2,
        source=Drawn(work.seed, 2, site),
        correction=shift,
    )
    wanted = layout.flat(vector.state(module)) - layout.flat(weights(work))
    found = Sum.empty(layout.size)
    Loop(work, people).update(order, Chunk(round=2, sites=np.array([site])), found)
    close(found.mean(), wanted, 1e-5)


def test_an_empty_batch_is_sat_out_unless_noise_is_due() -> None:
    rare = job(local={"sampling_rate": 1e-9, "momentum": 0.9, "weight_decay": 0.1})
    assert not update("batched", rare, population("value")).total.total.any()
    noise = dataclasses.replace(rare, privacy=PRIVATE)
    people = population("value")
    wanted, found = (update(name, noise, people).total.mean() for name in ("loop", "batched"))
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
    assert [name for name, _ in found.passed_over] == ["compiled", "batched", "vmap_compiled", "vmap"]
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
    assert private.executor.name == "vmap"
    with pytest.raises(ConfigError, match=r"executor batched cannot do this: model gru trained in all is not"):
        choice.choose(job(model="gru", options={"hidden": 5}), people, "batched")
    with pytest.raises(ConfigError, match=r"simulation\.executor is 'fast'"):
        choice.choose(job(), people, "fast")
