"""Our side of the benchmarks: two enrolled sites on generated readings of engine_rul's shape."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedsite.server.runs.journal import Reader
from tests.e2e.federation import Federation

CHANNELS = 14
LENGTH = 30  # 420 inputs, as the peer's network has
ROWS = 200

_TASK = """\
schema: fedsite.task/1
name: latency
title: Latency
description: A network of engine_rul's size on readings that mean nothing.
data: {{source: file, file: latency.csv, format: csv, entity: machine, time: time}}
channels:
{channels}
rate: {{seconds: 1.0}}
window: {{length: {length}}}
label: {{kind: column, column: y, at: last, maximum: 125, scale: 125}}
split: {{kind: none}}
model: {{name: mlp, options: {{hidden: [64, 32], activation: tanh}}}}
loss: mse
metric: {{name: rmse, better: lower, unit: "1", maximum: 125}}
training: {{rounds: 1, local: {{steps: 1, sampling_rate: 0.2, optimizer: sgd, learning_rate: 0.01}}}}
"""


@dataclass(slots=True)
class Sites(Federation):
    """A federation whose sites hold the generated readings and allow runs without privacy."""

    def up(self, count: int, *settings: str) -> Sites:
        """Enrol `count` sites, start their agents with `settings`, and wait for them."""
        _, data = write(self.directory)
        names = [f"site-{number}" for number in range(count)]
        for name in names:
            home = self.join_site(name)
            (home / "site" / "site.yaml").write_text(
                f"data: {{path: {data}}}\npolicy: {{require_privacy: false, minimum_protection: none}}\n"
            )
            self.start_agent(name, *settings)
        self.wait_online(*names)
        return self

    def run(self, rounds: int, *overrides: str) -> Path:
        """One trivial run to its end: one step, no privacy, no release; returns the run's directory.

        Raises:
            RuntimeError: it failed.
        """
        done = self.cli(
            "launch",
            f"task_file={self.directory / 'latency.yaml'}",
            f"rounds.count={rounds}",
            "release=none",
            "privacy=none",
            "rounds.evaluate_every=100000",
            *overrides,
            timeout_s=600,
        )
        if done.code != 0:
            raise RuntimeError(f"our run failed: {done.stdout}{done.stderr}{self.log('server')}")
        return max((self.state / "runs").iterdir(), key=lambda path: path.name)


def write(folder: Path) -> tuple[Path, Path]:
    """Task file and CSV file in `folder`."""
    names = [f"c{index}" for index in range(CHANNELS)]
    task, data = folder / "latency.yaml", folder / "latency.csv"
    folder.mkdir(parents=True, exist_ok=True)
    rows = "\n".join(f'  - {{name: {name}, unit: "1", minimum: -1, maximum: 1}}' for name in names)
    task.write_text(_TASK.format(channels=rows, length=LENGTH))
    with data.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["time", "machine", *names, "y"])
        for second in range(ROWS):
            readings = [round(math.sin(second / (3 + index)), 4) for index in range(CHANNELS)]
            lines.writerow([second, "m", *readings, round(60 + 50 * readings[0], 3)])
    return task, data


def round_seconds(run: Path) -> list[float]:
    """From the first instruction of each round to the first of the next one (or to the round's end, for the last).

    That is all of a round: sending, training, receiving, adding up, the checkpoint and the journal.
    """
    events = Reader(run / "journal.db").events()
    starts = [_seconds(event) for event in events if event["kind"] == "asked" and event["phase"] == "train"]
    last = [_seconds(event) for event in events if event["kind"] == "round_finished"][-1]
    return [after - before for before, after in zip(starts, [*starts[1:], last], strict=True)]


def _seconds(event: dict[str, object]) -> float:
    return datetime.fromisoformat(str(event["at"])).timestamp()
