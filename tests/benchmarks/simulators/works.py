"""What every simulator of the comparison trains, from one folder of arrays: imports nothing but NumPy and torch.

Folder: `x.npy` [window, ...] float32, `y.npy` [window] int64 or empty, `rows.npy` [round, site of the cohort, window]
the windows of a site in the order of its batches, `start.npz` the initial weights by place, `work.json` model, batch,
rate. A contestant is a process: for each line `go` on its standard input it does one more round and answers with one
line of JSON; at the end of input it writes the model to the file that `--end` names.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Work:
    """The folder, opened; arrays are mapped, not read."""

    def __init__(self, folder: Path) -> None:
        facts = json.loads((folder / "work.json").read_text())
        self.model: str = facts["model"]
        self.batch: int = facts["batch"]
        self.rate: float = facts["rate"]
        self.x = np.load(folder / "x.npy", mmap_mode="c")
        self.y = np.load(folder / "y.npy", mmap_mode="c")
        self.rows = np.load(folder / "rows.npy")
        with np.load(folder / "start.npz") as found:
            self.start = [found[f"p{place}"] for place in range(len(found.files))]

    def data(self, number: int, place: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one site in one round, in the order of its batches."""
        rows = self.rows[number, place]
        x = torch.from_numpy(self.x[rows])
        return x, x if self.model == "ae" else torch.from_numpy(self.y[rows])

    def module(self) -> nn.Module:
        """The model with the initial weights."""
        found = _MODELS[self.model]()
        with torch.no_grad():
            for parameter, value in zip(found.parameters(), self.start, strict=True):
                parameter.copy_(torch.from_numpy(value))
        return found

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over a batch."""
        if self.model == "ae":
            return nn.functional.mse_loss(output, target)
        return nn.functional.cross_entropy(output, target)


def autoencoder() -> nn.Module:
    """64-192-64-192-64, 49,664 weights and biases."""
    return nn.Sequential(
        nn.Linear(64, 192), nn.ReLU(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 192), nn.ReLU(), nn.Linear(192, 64)
    )


def convolutions() -> nn.Module:
    """Two 3 x 3 convolutions with pooling and 1568-128-10, on 1 x 28 x 28: 206,922 weights and biases."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1568, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


_MODELS = {"ae": autoencoder, "cnn": convolutions}


def write(path: Path, weights: list[np.ndarray]) -> None:
    """The model of a contestant, by place."""
    np.savez(path, **{f"p{place}": value for place, value in enumerate(weights)})


def waited() -> bool:
    """Wait for the next `go`; False at the end of input."""
    return sys.stdin.readline().strip() == "go"


class Clock:
    """Answers with the wall seconds of a round, and the processor's of this process."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # what libraries print is talk

    def start(self) -> None:
        """A round begins."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, **more: Any) -> None:
        """A round has ended."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        self.say({"wall": wall, "cpu": cpu, **more})

    def say(self, value: dict[str, Any]) -> None:
        """One line to whoever started this process."""
        self._answers.write(json.dumps(value) + "\n")
