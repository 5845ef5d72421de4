"""A site's columns as they stand, problems noted and not refused, so that a data check can tell all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedsite.telemetry import sources, sources_columns, sources_files, sources_joins
from fedsite.telemetry.errors import Code, TaskError, TelemetryError
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.sources_files import Raw
from fedsite.telemetry.task import Task

Numbers = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What could be read. Shapes: arrays are [rows], NaN where there is no number.

    `values` holds single channels in their own units, as far as they could be read; `time` and `entity` are None where
    they could not.
    """

    origin: str
    rows: int = 0
    values: dict[str, Numbers] = field(default_factory=dict)
    time: Numbers | None = None
    entity: NDArray[np.int64] | None = None
    entities: tuple[str, ...] = ()
    problems: tuple[TelemetryError, ...] = ()


def read(task: Task, location: DataLocation) -> Survey:
    """Survey a site's part of its files (or of the generator).

    Raises:
        TelemetryError: there is nothing to survey: no file, an unreadable one, an unknown site.
    """
    with sources_files.readable(location.name(task)):
        return _read(task, location)


def _read(task: Task, location: DataLocation) -> Survey:
    try:
        raw = sources.open_raw(task, location)
    except TelemetryError as error:
        lacking = _lacking(task, location) if error.code is Code.COLUMN else []
        if not lacking:
            raise
        return Survey(origin=str(location.source(task)), problems=tuple(lacking))
    chosen, _ = sources.select(task, location, raw)
    problems: list[TelemetryError] = []
    frame = raw.frame[chosen] if raw.frame.height else raw.frame
    time = _noted(problems, lambda: sources_columns.times(frame, task.data.time, len(chosen), raw.origin))
    found = _noted(problems, lambda: sources.entities(task, frame, len(chosen), location))
    names, entity = found if found is not None else ((), None)
    values = _channels(task, raw, frame, chosen, problems)
    if time is not None and entity is not None:
        when, who = time, entity
        joined = _noted(problems, lambda: sources_joins.join(task, location, frame, names, who, when)) or {}
        values |= {name: column for name, column in joined.items() if name in task.channel_names}
    if task.label.classes and task.label.column in frame.columns:
        column, known = str(task.label.column), task.label.classes
        _noted(problems, lambda: sources_columns.classes(frame, column, known, raw.origin))
    return Survey(
        origin=raw.origin,
        rows=len(chosen),
        values=values,
        time=time,
        entity=entity,
        entities=names,
        problems=tuple(problems),
    )


def _lacking(task: Task, location: DataLocation) -> list[TelemetryError]:
    """Every column that is not there, one by one."""
    kind, files = sources_files.find(location.source(task), task.data.format)
    required, _ = sources.needed(task, location, kind)
    found: list[TelemetryError] = []
    for name in dict.fromkeys(required):
        try:
            sources_files.read(kind, files, [name], [], location.columns)
        except TelemetryError as error:
            found.append(error)
    return found


def _channels(
    task: Task, raw: Raw, frame: pl.DataFrame, rows: NDArray[np.int64], problems: list[TelemetryError]
) -> dict[str, Numbers]:
    values: dict[str, Numbers] = {}
    for channel in task.channels:
        if channel.name in raw.blocks:
            block = raw.blocks[channel.name][rows]
            wide = _noted(problems, partial(sources_columns.block, block, channel, raw.origin))
            if wide is not None:
                singles = enumerate(channel.expand())
                values |= {single.name: wide[:, number].astype(np.float64) for number, single in singles}
            continue
        for single in channel.expand():
            if not raw.has(single.name):
                continue  # it comes from a join
            unit = raw.units.get(single.name)
            column = _noted(problems, partial(sources_columns.numbers, frame, single, unit, raw.origin))
            if column is not None:
                values[single.name] = column
    return values


def _noted(problems: list[TelemetryError], attempt: Callable[[], T]) -> T | None:
    try:
        return attempt()
    except TaskError:
        raise
    except TelemetryError as error:
        problems.append(error)
        return None
