"""A toy task and toy tables that a test changes in one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.telemetry.table import Table
from fedsite.telemetry.task import Task, read_task

DOCUMENT: dict[str, Any] = {
    "schema": "fedsite.task/1",
    "name": "toy",
    "data": {"source": "file", "file": "toy.csv", "entity": "machine", "time": "time"},
    "channels": [
        {"name": "a", "unit": "degC", "minimum": 0, "maximum": 10},
        {"name": "b", "unit": "bar", "minimum": -1, "maximum": 1},
    ],
    "rate": {"seconds": 1.0},
    "window": {"length": 3},
    "label": {"kind": "column", "column": "y"},
    "split": {"kind": "none"},
    "model": {"name": "mlp"},
    "loss": "mse",
    "metric": {"name": "rmse", "better": "lower"},
}


@pytest.fixture
def toy_document() -> dict[str, Any]:
    """The document of the toy task, to be changed at will."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in DOCUMENT.items()}


@pytest.fixture
def toy_task() -> Callable[..., Task]:
    """A toy task with some sections replaced: mappings are laid over the default ones."""

    def build(**sections: Any) -> Task:
        document = dict(DOCUMENT)
        for key, value in sections.items():
            old = document.get(key)
            document[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        return read_task(document)

    return build


@pytest.fixture
def toy_table() -> Callable[..., Table]:
    """Rows of channels a (counting up from 0) and b (zeros), of one machine, labelled with their number."""

    def build(
        time: Any,
        *,
        entity: Any = None,
        label: Any = None,
        held: Any = None,
        a: Any = None,
        entities: int | None = None,
    ) -> Table:
        times = np.asarray(time, dtype=np.float64)
        count = len(times)
        first = np.arange(count, dtype=np.float32) if a is None else np.asarray(a, dtype=np.float32)
        owner = np.zeros(count, dtype=np.int64) if entity is None else np.asarray(entity, dtype=np.int64)
        number = entities or (int(owner.max()) + 1 if count else 1)
        return Table(
            values=np.stack([first, np.zeros(count, dtype=np.float32)], axis=1),
            time=times,
            entity=owner,
            entities=tuple(f"m{index}" for index in range(number)),
            label=np.arange(count, dtype=np.float64) if label is None else np.asarray(label, dtype=np.float64),
            held=np.zeros(count, dtype=bool) if held is None else np.asarray(held, dtype=bool),
            real=np.ones(count, dtype=bool),
            origin="toy.csv",
        )

    return build


@pytest.fixture
def toy_file(tmp_path: Path) -> Callable[..., Path]:
    """A CSV file of the toy task's schema, 10 rows of one machine, with some columns replaced (None: left out)."""

    def build(name: str = "toy.csv", separator: str = ",", **columns: Any) -> Path:
        default = {
            "machine": ["m1"] * 10,
            "time": list(range(10)),
            "a": list(range(10)),
            "b": [0.5] * 10,
            "y": list(range(10)),
        }
        wanted = {key: value for key, value in {**default, **columns}.items() if value is not None}
        lines = [separator.join(wanted)]
        lines += [separator.join(str(item) for item in row) for row in zip(*wanted.values(), strict=True)]
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return build
