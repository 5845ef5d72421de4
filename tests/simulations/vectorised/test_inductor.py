"""Compiled gradients: chosen for long runs where there is a compiler, equal to the loop, refused with a reason."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedsite.simulations.vectorised import choice, inductor, schedule
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Epochs, Job, Layout
from fedsite.simulations.vectorised.sums import Sum
from tests.simulated_jobs import ENTITY, PRIVATE, job, population, weights

LONG = 10**9  # trainings of sites
OWN = job("cross_entropy", "cnn1d", {"channels": [4], "kernel": 3, "stride": 1}, trainable="head")


def test_only_a_long_run_compiles_and_only_where_there_is_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    people = population("class")
    steps = schedule.local_steps(OWN, people)
    assert steps == 4
    assert schedule.local_steps(dataclasses.replace(OWN, epochs=Epochs(batch=4, count=2)), people) == 10
    short = inductor.obstacle(OWN, people, "cpu", inductor.PAYS_FROM // steps - 1)
    assert short == "compiling pays from 250,000 local steps of sites in a run; this one has 249,996"
    monkeypatch.setattr(inductor.shutil, "which", lambda name: None)
    assert inductor.obstacle(OWN, people, "cpu", LONG) == "there is no C++ compiler here (g++)"
    assert inductor.obstacle(OWN, people, "cpu", None) == "there is no C++ compiler here (g++)"
    entities = dataclasses.replace(OWN, privacy=ENTITY)
    assert inductor.obstacle(entities, people, "cpu", LONG) == "privacy.unit entity has batches of many shapes"
    found = choice.choose(OWN, people, trainings=LONG)
    assert found.executor.name == "vmap"
    assert dict(found.passed_over)["vmap_compiled"] == "there is no C++ compiler here (g++)"


def test_a_compiler_that_fails_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: inductor.Inductor) -> None:
        raise OSError("no room for objects\nand much more")

    monkeypatch.setattr(inductor.Inductor, "probe", fail)
    monkeypatch.setattr(inductor.shutil, "which", lambda name: "/usr/bin/g++")
    found = choice.choose(OWN, population("class"), trainings=LONG)
    assert found.executor.name == "vmap"
    assert dict(found.passed_over)["vmap_compiled"] == "torch.compile fails here (no room for objects)"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler (g++)")
@pytest.mark.parametrize("name", ["epochs", "several blocks", "private"])
def test_compiled_gradients_are_those_of_the_loop(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    relu = {"hidden": [6, 5], "activation": "relu"}
    work = {
        "epochs": job("cross_entropy", options=relu, epochs=Epochs(batch=4, count=2)),
        "several blocks": job("cross_entropy", options=relu, local={"sampling_rate": 0.4}),
        "private": job("cross_entropy", options=relu, privacy=PRIVATE, local={"momentum": 0.9}),
    }[name]
    monkeypatch.setattr(inductor, "_width", lambda job, population: 4)
    wanted, found = (trained(work, executor) for executor in ("loop", "vmap_compiled"))
    assert np.linalg.norm(found - wanted) <= 1e-5 * np.linalg.norm(wanted)
    assert any((tmp_path / "fedsite" / "inductor").rglob("*.so")), "kept for the next run"


def trained(work: Job, executor: str) -> np.ndarray:
    """Everybody's mean update in round 2, in chunks of which the last is smaller."""
    people = population("class")
    chosen = choice.choose(work, people, executor).executor
    total = Sum.empty(Layout.of(work.module()).size)
    for chunk in schedule.chunks(people, np.arange(len(people)), 2, size=3):
        chosen.update(Order(weights=weights(work)), chunk, total)
    return total.mean()
