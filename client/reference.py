"""What this site's data looked like when its operator last called it right: the site's own file, read by nobody else.

It holds counts of readings, which are facts about the data. So it is readable by its owner only, goes with `fedsite
leave`, and is in no message and no bug report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from fedsite.protocol import documents, instants, storage
from fedsite.protocol.errors import DocumentError, FedsiteError
from fedsite.telemetry.contract import Reference
from fedsite.telemetry.drift import BINS, MOST, OUTSIDE, Histogram, Summary
from fedsite.telemetry.task import Task

FOLDER = "contract"
SCHEMA = "fedsite.contract/1"
LIMIT = 8 << 20  # bytes
_LABELS = 100_000


def load(directory: Path, task: Task) -> Reference | None:
    """The reference of a task; None when none was taken.

    Raises:
        FedsiteError: it is there and cannot be read; the next step takes another.
    """
    path = _path(directory, task)
    if not path.exists():
        return None
    try:
        value = documents.document(storage.read(path, limit=LIMIT), SCHEMA, limit=LIMIT)
        return Reference(summary=_summary(value), taken=instants.text(instants.read(str(value["taken"]))))
    except (FedsiteError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DocumentError(
            f"{path} cannot be read ({getattr(error, 'found', type(error).__name__)})",
            allowed="what fedsite data check wrote",
            next_step=f"take another reference: fedsite data check {task.name} --accept",
        ) from None


def keep(directory: Path, task: Task, summary: Summary, now: datetime) -> Reference:
    """Make a summary the reference.

    Raises:
        StorageError: it cannot be written; an older one is untouched.
    """
    taken = instants.text(now)
    value = {
        "schema": SCHEMA,
        "task": task.name,
        "taken": taken,
        "rows": summary.rows,
        "until": summary.until,
        "labels": dict(summary.labels),
        "channels": {
            name: {"unit": some.unit, "minimum": some.minimum, "maximum": some.maximum, "counts": some.counts.tolist()}
            for name, some in summary.channels.items()
        },
    }
    path = _path(directory, task)
    storage.private_directory(path.parent)
    storage.write_atomic(path, documents.canonical(value))
    return Reference(summary=summary, taken=taken)


def _path(directory: Path, task: Task) -> Path:
    # A task's name is letters and digits, - and _, but of any length and script.
    plain = task.name.isascii() and len(task.name) <= 100
    name = task.name if plain else hashlib.sha256(task.name.encode()).hexdigest()
    return directory / FOLDER / f"{name}.json"


def _summary(value: Mapping[str, Any]) -> Summary:
    channels = {str(name): _histogram(some) for name, some in value["channels"].items()}
    labels = {str(name): _count(count) for name, count in value["labels"].items()}
    if len(channels) > MOST or len(labels) > _LABELS:
        raise ValueError
    until = value["until"]
    return Summary(
        rows=_count(value["rows"]), until=None if until is None else float(until), channels=channels, labels=labels
    )


def _histogram(value: Mapping[str, Any]) -> Histogram:
    counts = [_count(count) for count in value["counts"]]
    if len(counts) != BINS + OUTSIDE:
        raise ValueError
    return Histogram(
        unit=str(value["unit"]),
        minimum=float(value["minimum"]),
        maximum=float(value["maximum"]),
        counts=np.array(counts, np.int64),
    )


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 40:
        raise ValueError
    return value
