"""Devices: refused where they are not, the same windows streamed as resident, the same noise made where it is added."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.vectorised import choice, devices, noise, randomness, schedule
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Epochs, Job, Layout
from fedsite.simulations.vectorised.randomness import Purpose
from fedsite.simulations.vectorised.schedule import Chunk
from fedsite.simulations.vectorised.sums import Sum
from tests.simulated_jobs import ENTITY, PRIVATE, job, population, weights

GPU = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no CUDA device: what runs on a GPU is tested where there is one"
)
RELU = {"hidden": [6, 5], "activation": "relu"}
JOBS = {
    "epochs": job("cross_entropy", options=RELU, epochs=Epochs(batch=4, count=2)),
    "private": job("cross_entropy", options=RELU, privacy=PRIVATE),
    "entities": job("cross_entropy", options=RELU, privacy=ENTITY),
    "Adam": job("cross_entropy", options=RELU, local={"optimizer": "adam", "learning_rate": 0.02}),
    "convolution": job("cross_entropy", "cnn1d", {"channels": [4], "kernel": 3, "stride": 1}),
}


def trained(work: Job, executor: str, device: str) -> np.ndarray:
    """Everybody's mean update in round 2."""
    people = population("class")
    chosen = choice.choose(work, people, executor, device).executor
    total = Sum.empty(Layout.of(work.module()).size)
    chosen.update(Order(weights=weights(work)), Chunk(round=2, sites=np.array([2, 4, 0, 3, 1])), total)
    return total.mean()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"simulation\.device is cuda, and torch finds no CUDA device here"):
        choice.choose(job(), population("value"), device="cuda")
    with pytest.raises(ConfigError, match=r"simulation\.device is 'gpu'"):
        choice.choose(job(), population("value"), device="gpu")


def test_a_graphics_card_takes_many_sites_at_a_time() -> None:
    assert schedule.chunk_sites("cpu", 50_000) == 20
    assert schedule.chunk_sites("cuda", 50_000) == 2684
    assert schedule.chunk_sites("cuda", 10**9) == 20
    assert schedule.chunk_sites("cuda", 10) == 4096


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_noise_is_drawn_from_the_same_hashes_as_on_the_host(count: int) -> None:
    keys = randomness.key(5, Purpose.NOISE, 3, np.arange(4))
    found = noise.normal(keys, count, "cpu")
    assert found.shape == (4, count)
    assert np.allclose(found.numpy(), randomness.normal(keys, count), atol=3e-6)


@pytest.mark.parametrize("name", ["epochs", "entities"])
def test_windows_that_do_not_fit_are_streamed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = trained(JOBS[name], "batched", "cpu")

    class Streamed(devices.Windows):
        def __init__(self, x: np.ndarray, y: np.ndarray, device: str) -> None:
            super().__init__(x, y, device)
            self.resident = False

    monkeypatch.setattr(devices, "Windows", Streamed)
    assert np.array_equal(trained(JOBS[name], "batched", "cpu"), wanted)


@GPU
@pytest.mark.parametrize("executor", ["batched", "vmap"])
@pytest.mark.parametrize("name", JOBS)
def test_a_graphics_card_trains_like_the_loop(name: str, executor: str) -> None:
    if (name, executor) == ("convolution", "batched"):
        pytest.skip("formulas know dense layers only")
    wanted, found = trained(JOBS[name], "loop", "cpu"), trained(JOBS[name], executor, "cuda")
    assert np.linalg.norm(found - wanted) <= 1e-4 * np.linalg.norm(wanted)
