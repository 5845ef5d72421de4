"""A task and five sites that a simulation takes no time over: a sum of two readings, told apart by a threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TITLE = "Toys & <b>bits</b>"
TASK = f"""
schema: fedsite.task/1
name: toys
title: "{TITLE}"
data: {{source: file, file: toys.csv, format: csv, site_column: site, entity: machine, time: t, sites: 5}}
channels:
  - {{name: a, unit: "1", minimum: -1.0, maximum: 1.0}}
  - {{name: b, unit: "1", minimum: -1.0, maximum: 1.0}}
window: {{length: 1, minimum: 1}}
label: {{kind: column, column: y, classes: [low, high]}}
split: {{kind: column, column: split, train: train, holdout: test}}
model: {{name: mlp, options: {{hidden: [4]}}}}
loss: cross_entropy
metric: {{name: accuracy, better: higher, unit: "1"}}
training:
  rounds: 3
  local: {{steps: 2, sampling_rate: 0.5, learning_rate: 0.5}}
  private: {{rounds: 3, clip: 1.0, unit: window, batch: 8.0}}
"""
# No kernels are compiled and nothing is measured: a test's second is for what it tests.
QUICK = (
    "privacy=none",
    "simulation.executor=batched",
    "simulation.fleet.speed.windows_s=1000",
    "local.learning_rate=0.5",
)


def write(folder: Path, sites: int = 5, rows: int = 24) -> list[str]:
    """The task and its data; the overrides that name them."""
    rng = np.random.default_rng(7)
    lines = ["site,machine,t,a,b,y,split"]
    for site in range(sites):
        for row in range(rows):
            a, b = rng.uniform(-1, 1, 2)
            label = "high" if a + b > 0 else "low"
            lines.append(f"site{site},m{site},{row},{a:.4f},{b:.4f},{label},{'test' if row % 3 == 0 else 'train'}")
    (folder / "toys.csv").write_text("\n".join(lines) + "\n")
    (folder / "toys.yaml").write_text(TASK)
    return [f"task_file={folder / 'toys.yaml'}", f"data.path={folder / 'toys.csv'}", *QUICK]
