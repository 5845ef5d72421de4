"""What does one private gradient cost at a site, beside Opacus' default hooks and beside a step without privacy?

`python tests/benchmarks/dp_step.py [--repeats N] [--tasks pump …] [--json]`. The clipped sum of one batch, before
noise: ours (explicit, float64, what a site runs), Opacus' GradSampleModule with clip and sum in its default float32 and
in our float64, and autograd's mean gradient in float32 for scale. They take turns on the same arrays; medians of CPU
milliseconds. Ours and Opacus' float64 must agree to 1e-9 first. Data are random: the models and the shapes of their
windows are those of the shipped tasks; `ae` and `cnn` are those of docs/research.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from fedsite.models import catalog
from fedsite.models.clipped_sums import ClippedSums
from fedsite.models.losses import loss_function
from fedsite.privacy import clipping
from fedsite.telemetry.task import load_task

TASKS = (
    "activity", "air_forecast", "digits", "engine_rul", "mnist", "pump", "pump_anomaly", "server_anomaly", "ward",
)  # fmt: skip
WAYS = ("ours", "hooks float32", "hooks float64", "not private")


class CNN(nn.Module):
    """conv 3x3x16, pool, conv 3x3x32, pool, 1568-128-10 on 28x28."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 28, 28] to [N, 10]."""
        return self.head(self.convolutions(x.unsqueeze(1)).flatten(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A model and one batch."""

    module: nn.Module
    x: Tensor
    y: Tensor
    loss: str


def work(module: nn.Module, shape: tuple[int, int], outputs: int, loss: str, batch: int) -> Work:
    """The batch is random."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(batch, *shape)).astype(np.float32))
    y = {
        "reconstruction": lambda: x,
        "cross_entropy": lambda: torch.from_numpy(rng.integers(0, outputs, batch)),
        "binary_cross_entropy": lambda: torch.from_numpy(rng.integers(0, 2, (batch, 1)).astype(np.float32)),
        "mse": lambda: torch.from_numpy(rng.normal(size=(batch, outputs)).astype(np.float32)),
    }[loss]()
    return Work(module=module, x=x, y=y, loss=loss)


def works(names: list[str], batch: int) -> dict[str, Work]:
    """By name: the two of docs/research.md, the tasks, and the architectures that no task uses."""
    ae = catalog.build("mlp", {"hidden": [192, 64, 192], "activation": "relu"}, time=1, features=64, outputs=64, seed=1)
    found = {"ae": work(ae, (1, 64), 64, "mse", batch), "cnn": work(CNN(), (28, 28), 10, "cross_entropy", batch)}
    for name in TASKS:
        task = load_task(name)
        time_, features = task.input_shape
        module = catalog.build(
            task.model.name, task.model.options, time=time_, features=features, outputs=task.outputs, seed=1
        )
        found[name] = work(module, (time_, features), task.outputs, task.loss, batch)
    for name, loss in (
        ("cnn1d", "cross_entropy"),
        ("tcn", "mse"),
        ("gru", "mse"),
        ("conv_autoencoder", "reconstruction"),
    ):
        module = catalog.build(name, {}, time=32, features=6, outputs=4, seed=1)
        found[name] = work(module, (32, 6), 4, loss, batch)
    return {name: one for name, one in found.items() if not names or name in names}


def hooks(made: Work, bound: float, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Opacus as its documentation uses it: per-sample gradients, their norms, the clipped sum."""
    module = GradSampleModule(copy.deepcopy(made.module).to(dtype), loss_reduction="sum")
    parameters = list(module.parameters())
    x, y = made.x.to(dtype), made.y.to(dtype) if made.y.is_floating_point() else made.y
    criterion = loss_function(made.loss)

    def act() -> Tensor:
        module.zero_grad(set_to_none=True)
        criterion(module(x), y).sum().backward()
        rows = [parameter.grad_sample for parameter in parameters]
        norms = torch.stack([row.flatten(1).norm(2, 1) for row in rows], 1).norm(2, 1)
        scale = torch.from_numpy(clipping.factors(norms.numpy(), bound)).to(dtype)
        return torch.cat([torch.einsum("n,n...", scale, row).flatten() for row in rows])

    return act


def plain(made: Work) -> Callable[[], Any]:
    """A gradient without privacy."""
    parameters, criterion = list(made.module.parameters()), loss_function(made.loss)
    return lambda: torch.autograd.grad(criterion(made.module(made.x), made.y).mean(), parameters)


def measure(made: Work, bound: float, repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each way."""
    rows = np.arange(len(made.x))
    sums = ClippedSums(made.module, made.x, made.y, loss_function(made.loss))
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: sums.total(rows, None, bound),
        "hooks float32": hooks(made, bound, torch.float32),
        "hooks float64": hooks(made, bound, torch.float64),
        "not private": plain(made),
    }
    expected = ways["hooks float64"]().numpy()
    error = np.linalg.norm(ways["ours"]() - expected) / np.linalg.norm(expected)
    assert error < 1e-9, f"sums differ by {error:.2g}"
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, act in ways.items():
            act()  # what the others left in the caches is not its own cost
            started = time.process_time()
            for _ in range(4):
                act()
            taken[name].append(1e3 * (time.process_time() - started) / 4)
    return {name: median(values) for name, values in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batches", type=int, nargs="*", default=[10, 64])
    parser.add_argument("--tasks", nargs="*", default=[])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"{'CPU ms':<17}{'batch':>5}" + "".join(f"{way:>15}" for way in WAYS) + f"{'x float32':>11}{'x float64':>11}")
    table = []
    for batch in options.batches:
        for name, made in works(options.tasks, batch).items():
            found = measure(made, 0.1, options.repeats)
            times = {dtype: found[f"hooks {dtype}"] / found["ours"] for dtype in ("float32", "float64")}
            print(
                f"{name:<17}{batch:>5}" + "".join(f"{found[way]:>15.2f}" for way in WAYS)
                + "".join(f"{ratio:>11.1f}" for ratio in times.values()), flush=True,
            )  # fmt: skip
            table.append({"model": name, "batch": batch, "cpu_ms": found, "times_as_fast": times})
    if options.json:
        print(json.dumps(table))


if __name__ == "__main__":
    main()
