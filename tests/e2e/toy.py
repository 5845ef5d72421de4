"""A task so small that only the machinery counts, and files that break its contract one at a time."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path

Row = dict[str, object]

TASK = """\
schema: fedsite.task/1
name: toy
title: Toy
description: Tells the sum of two readings.
data: {source: file, file: toy.csv, format: csv, entity: machine, time: time}
channels:
  - {name: temperature, unit: degC, minimum: 0, maximum: 100, outside: refuse}
  - {name: pressure, unit: bar, minimum: 0, maximum: 10}
rate: {seconds: 1.0}
window: {length: 4, stride: 4, minimum: 20}
label: {kind: column, column: load, at: last, maximum: 200, scale: 200}
split: {kind: column, column: part, train: train, holdout: holdout}
model: {name: mlp, options: {hidden: [4], activation: tanh}}
loss: mse
metric: {name: rmse, better: lower, unit: kW, maximum: 200}
training:
  rounds: 2
  local: {steps: 2, sampling_rate: 0.2, optimizer: sgd, learning_rate: 0.1}
"""


def write(folder: Path, change: Callable[[list[Row]], Iterable[Row]] = lambda rows: rows) -> tuple[Path, Path]:
    """Task file and data file in `folder`; `change` alters the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for machine in range(4):
        for second in range(80):
            temperature = 50 + 40 * math.sin(second / 7 + machine)
            pressure = 5 + 4 * math.cos(second / 5)
            rows.append(
                {
                    "time": second,
                    "machine": f"m{machine}",
                    "temperature": round(temperature, 3),
                    "pressure": round(pressure, 3),
                    "load": round(temperature + pressure, 3),
                    "part": "holdout" if machine == 3 else "train",
                }
            )
    changed = list(change(rows))
    task, data = folder / "toy.yaml", folder / "toy.csv"
    task.write_text(TASK)
    text = io.StringIO()
    lines = csv.DictWriter(text, fieldnames=list(changed[0]) if changed else list(rows[0]))
    lines.writeheader()
    lines.writerows(changed)
    data.write_text(text.getvalue())
    return task, data
