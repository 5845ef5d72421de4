"""Training and holdout rows, by column, entity or time: whatever a training window can see, no holdout window sees."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsite.telemetry.errors import CHECK, Code, TelemetryError
from fedsite.telemetry.table import Table
from fedsite.telemetry.task import Task


def assign(table: Table, task: Task) -> Table:
    """Give every row its part; rows of the guard between training and holdout are left out.

    Raises:
        TelemetryError: too few entities or rows to split.
    """
    kind = task.split.kind
    if kind == "column":
        return table
    if kind == "none":
        return replace(table, held=np.zeros(len(table), dtype=bool))
    if kind == "entity":
        chosen = holdout_entities(table.entities, task.split.fraction, table.origin)
        return replace(table, held=np.isin(table.entity, chosen))
    rank, count = _ranks(table.entity)
    held = _after_cut(table, task, rank, count)
    guard = task.split.guard
    if guard is None:
        guard = task.window.length + (task.label.ahead if task.label.kind == "horizon" else 0)
    training = np.bincount(table.entity[~held], minlength=len(table.entities))[table.entity]
    guarded = ~held & (training < count) & (rank >= training - guard)
    for events in task.events:
        if events.horizon is not None:
            first = _first_held(table, held)[table.entity]
            guarded |= ~held & (table.time + events.horizon >= first)
    return replace(table, held=held).take(~guarded)


def holdout_entities(entities: tuple[str, ...], fraction: float, origin: str) -> NDArray[np.int64]:
    """Indices of the entities held out: each by the hash of its own name alone.

    A new entity moves no other, which a claim per entity rests on; so `fraction` is met on average, not exactly.

    Raises:
        TelemetryError: all of them are on one side.
    """
    draws = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64 for name in entities]
    chosen = np.flatnonzero(np.array(draws) < fraction)
    if 0 < len(chosen) < len(entities):
        return chosen
    raise TelemetryError(
        f"{origin}: the {len(entities)} entities are all {'held out' if len(chosen) else 'in training'}",
        allowed="entities on both sides: more of them, another split.fraction, or split.kind: time",
        next_step=CHECK,
        code=Code.TOO_FEW,
    )


def _after_cut(table: Table, task: Task, rank: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.bool_]:
    split = task.split
    if split.rows is not None:
        return rank >= split.rows
    if split.moment is not None:
        return table.time >= split.moment
    return rank >= np.ceil((1.0 - split.fraction) * count)


def _ranks(entity: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each row's place within its entity, and the entity's number of rows; rows are sorted by entity."""
    counts = np.bincount(entity) if len(entity) else np.zeros(0, dtype=np.int64)
    starts = np.cumsum(counts) - counts
    return np.arange(len(entity)) - starts[entity], counts[entity]


def _first_held(table: Table, held: NDArray[np.bool_]) -> NDArray[np.float64]:
    first = np.full(len(table.entities), np.inf)
    np.minimum.at(first, table.entity[held], table.time[held])
    return first
