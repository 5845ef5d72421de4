"""Kernels: every shipped architecture on windows of some size trains as in the loop, and what has none says why."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import ModelPlan
from fedsite.simulations.vectorised import choice, kernel_cache, schedule, traced
from fedsite.simulations.vectorised.controls import Controls
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Epochs, Job, Layout
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.sums import Sum
from tests.simulated_jobs import PRIVATE, SUMS, job, secured, weights

TIME, FEATURES = 9, 7
SIZES = (17, 5, 29, 12)
SMALL = {"channels": [4, 18], "stride": 1, "pool": 2, "hidden": [5]}
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "cnn1d": ("cnn1d", {"channels": [4, 6], "kernel": 3, "hidden": [5]}, "cross_entropy"),
    "cnn1d, flat": (
        "cnn1d",
        {"channels": [4, 40], "stride": 1, "pool": "flatten", "activation": "tanh"},
        "cross_entropy",
    ),
    "cnn2d": ("cnn2d", {"channels": [4, 6], "hidden": [5], "activation": "leaky_relu"}, "cross_entropy"),
    "cnn2d, pooled": ("cnn2d", SMALL, "cross_entropy"),
    "conv_autoencoder": ("conv_autoencoder", {"channels": [6, 4], "kernel": 3, "code": 2}, "reconstruction"),
    "tcn": ("tcn", {"channels": [4, 4]}, "mse"),
    "tcn, skips": ("tcn", {"channels": [4, 20, 20], "kernel": 2, "activation": "tanh"}, "mse"),
    "gru": ("gru", {"hidden": 5, "layers": 2}, "mse"),
}
PULLED = {"momentum": 0.9, "proximal": 0.3, "weight_decay": 0.01}
WAYS: dict[str, Job] = {
    "plain": job(),
    "epochs": job(epochs=Epochs(batch=4)),
    "pulled": job(local=PULLED),
    "private": job(privacy=PRIVATE),
    "private, pulled": job(local=PULLED, privacy=PRIVATE),
    "clipped sums": secured(SUMS),
    "SCAFFOLD": job(),
    "SCAFFOLD, private": job(privacy=PRIVATE),
}
CASES = [(model, way) for model in MODELS for way in WAYS]
DEFAULT = [
    ("cnn1d", "pulled"),
    ("cnn2d, pooled", "private"),
    ("conv_autoencoder", "plain"),
    ("tcn", "SCAFFOLD, private"),
]


def work(model: str, way: str) -> tuple[Job, Population]:
    """A job on windows of some rows and columns."""
    name, options, loss = MODELS[model]
    outputs = 4 if loss == "cross_entropy" else 2
    made = dataclasses.replace(
        WAYS[way],
        model=ModelPlan(name=name, options=options),
        loss=loss,
        outputs=outputs,
        time=TIME,
        features=FEATURES,
    )
    rng, count = np.random.default_rng(7), sum(SIZES)
    y = rng.integers(0, 4, count) if loss != "mse" else rng.standard_normal((count, 2)).astype(np.float32)
    return made, Population(
        x=rng.standard_normal((count, TIME, FEATURES), np.float32),
        y=y,
        offsets=np.cumsum([0, *SIZES]),
        entity=rng.integers(0, 4, count),
    )


def update(executor: str, made: Job, people: Population, folder: Path | None = None, size: int = 3) -> Sum:
    """The sum of everybody's updates."""
    if executor == "compiled":
        pytest.importorskip("numba", reason="kernels need numba: pip install 'fedsite[fast]'")
    numbers, rng = Layout.of(made.module()).size, np.random.default_rng(5)
    order, total = Order(weights=weights(made)), Sum.empty(numbers)
    if folder:
        kept = Controls.create(folder / executor, len(people), numbers)
        kept.write(np.arange(len(people)), rng.standard_normal((len(people), numbers), np.float32))
        order = dataclasses.replace(order, control=rng.standard_normal(numbers, np.float32), controls=kept)
    chosen = choice.choose(made, people, executor).executor
    for chunk in schedule.chunks(people, np.arange(len(people)), 2, size=size):
        chosen.update(order, chunk, total)
    return total


def same(model: str, way: str, folder: Path) -> None:
    made, people = work(model, way)
    own = folder if "SCAFFOLD" in way else None
    wanted, found = (update(name, made, people, own).mean() for name in ("loop", "compiled"))
    assert np.linalg.norm(wanted) > 0
    assert np.linalg.norm(found - wanted) <= 1e-5 * np.linalg.norm(wanted)


@pytest.mark.parametrize(("model", "way"), DEFAULT)
def test_kernels_train_like_the_loop(model: str, way: str, tmp_path: Path) -> None:
    same(model, way, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "way"), [case for case in CASES if case not in DEFAULT])
def test_kernels_train_every_model_in_every_way_like_the_loop(model: str, way: str, tmp_path: Path) -> None:
    same(model, way, tmp_path)


@pytest.mark.parametrize("model", ["cnn2d, pooled", "tcn", "gru"])
def test_a_site_ends_with_the_same_bits_in_any_company(model: str) -> None:
    made, people = work(model, "private")
    alone, together = (update("compiled", made, people, size=size).total for size in (1, 4))
    assert np.array_equal(alone, together)


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_has_a_place_of_its_own(model: str) -> None:
    made, _ = work(model, "plain")
    program = traced.program(made)
    assert not isinstance(program, str)
    places = np.concatenate([start + np.arange(count) * step for _, start, count, step in program.runs])
    numbers = np.concatenate([start + np.arange(count) for start, _, count, _ in program.runs])
    assert sorted(numbers.tolist()) == list(range(Layout.of(made.module()).size))
    assert len(set(places.tolist())) == len(places)
    assert 0 <= places.min() <= places.max() < program.size


def test_the_peers_network_has_the_size_that_it_has() -> None:
    options = {"channels": [16, 32], "stride": 1, "pool": 2, "hidden": [128]}
    made = dataclasses.replace(
        work("cnn2d", "plain")[0], time=28, features=28, outputs=10, model=ModelPlan(name="cnn2d", options=options)
    )
    program = traced.program(made)
    assert not isinstance(program, str)
    assert (len(program.table), program.prefix) == (6, 4)
    assert Layout.of(made.module()).size == 206_922


REASONS = [
    ("cnn1d", {"norm": "group"}, "all", "layer GroupNorm has no kernel here"),
    ("mlp", {}, "head", "model mlp is trained in head only"),
]


@pytest.mark.parametrize(("name", "options", "trainable", "reason"), REASONS)
def test_what_has_no_kernel_says_why(name: str, options: dict[str, Any], trainable: str, reason: str) -> None:
    made = dataclasses.replace(
        work("cnn1d", "plain")[0], model=ModelPlan(name=name, options=options, trainable=trainable)
    )
    with pytest.raises(ConfigError, match=reason):
        choice.choose(made, work("cnn1d", "plain")[1], "compiled")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="pip install 'fedsite[fast]'")
def test_compiling_shows_how_far_it_is_and_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = (
        "from fedsite.simulations.vectorised import compiled\n"
        "heard = []\n"
        "compiled.warm(lambda *told: heard.append(told))\n"
        "print(len(heard), heard[-1] if heard else '')"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = sorted(process.communicate(timeout=600)[0].strip() for process in both)
    all_ = kernel_cache.FUNCTIONS
    assert told == ["0", f"{all_} ({all_}, {all_}, 'train_chunk')"]
    assert kernel_cache.cached()
