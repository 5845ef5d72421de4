"""Context and event tables joined to each reading as of its time and entity: nothing later than it informs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedsite.telemetry import sources_columns, sources_files
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.task import Task
from fedsite.telemetry.task_document import Context, Events


def files(task: Task, folder: Path) -> set[Path]:
    """Files and folders of the joined tables: not readings, even where they lie among them."""
    return {folder / name for name in (*(c.file for c in task.context), *(e.file for e in task.events))}


def names(task: Task) -> set[str]:
    """Channels and label columns that come from a join, not from the readings."""
    found = {column for context in task.context for column in context.columns}
    for events in task.events:
        found |= {name for name in (events.since, events.within) if name is not None}
    return found


def join(
    task: Task,
    location: DataLocation,
    frame: pl.DataFrame,
    entities: tuple[str, ...],
    entity: NDArray[np.int64],
    time: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Columns made by the task's joins, by name, for every row of `frame`.

    Raises:
        TelemetryError: a table cannot be read, or lacks a column.
    """
    if not task.context and not task.events:
        return {}  # of a generated task: there need not be a folder
    folder = location.folder(task)
    left = pl.DataFrame({"entity": np.array(entities)[entity], "time": time}).with_row_index("row")
    found: dict[str, NDArray[np.float64]] = {}
    for context in task.context:
        found |= _context(context, folder / context.file, left)
    for events in task.events:
        found |= _events(events, folder / events.file, left, task)
    return found


def _context(context: Context, path: Path, left: pl.DataFrame) -> dict[str, NDArray[np.float64]]:
    right = _table(path, context.entity, context.time, list(context.columns))
    if context.time is None:
        right = right.unique("entity", keep="last", maintain_order=True) if context.entity else right.tail(1)
        on = left.select("row", "entity")
        if context.entity:
            joined = on.join(right, on="entity", how="left")
        else:
            joined = on.join(right.drop("entity"), how="cross")
    else:
        joined = _as_of(left, right, "backward", context.entity is not None, context.tolerance)
    joined = joined.sort("row")
    return {name: sources_columns.values(joined, name, str(path)) for name in context.columns}


def _events(events: Events, path: Path, left: pl.DataFrame, task: Task) -> dict[str, NDArray[np.float64]]:
    right = _table(path, events.entity, events.time, [events.kind] if events.kind else [])
    if events.kinds:
        right = right.filter(pl.col(str(events.kind)).cast(pl.String).is_in(list(events.kinds)))
    right = right.select("entity", "time", pl.col("time").alias("event"))
    by_entity = events.entity is not None
    found: dict[str, NDArray[np.float64]] = {}
    if events.since is not None:
        last = _as_of(left, right, "backward", by_entity, None).sort("row")
        age = (last["time"] - last["event"]).fill_null(float("inf")).to_numpy()
        bounds = next(channel for channel in task.single_channels if channel.name == events.since)
        found[events.since] = np.clip(age, None, bounds.maximum)
    if events.within is not None and events.horizon is not None:
        # An event at the reading's own time is already known: only later ones count.
        ahead = _as_of(left, right, "forward", by_entity, None, exact=False).sort("row")
        wait = (ahead["event"] - ahead["time"]).fill_null(float("inf")).to_numpy()
        end = ahead.select(pl.col("time").max().over("entity")).to_series()
        unknown = (wait > events.horizon) & (ahead["time"] + events.horizon > end).to_numpy()
        found[events.within] = np.where(unknown, np.nan, (wait <= events.horizon).astype(np.float64))
    return found


def _table(path: Path, entity: str | None, time: str | None, columns: list[str]) -> pl.DataFrame:
    kind, paths = sources_files.find(path, None)
    required = [name for name in (entity, time, *columns) if name]
    raw = sources_files.read(kind, paths, required, [], {})
    key = raw.frame[entity].cast(pl.String) if entity else pl.Series([""] * raw.frame.height, dtype=pl.String)
    right = pl.DataFrame({"entity": key, **{name: raw.frame[name] for name in columns}})
    if time is not None:
        moments = sources_columns.times(raw.frame, time, raw.frame.height, str(path))
        right = right.with_columns(pl.Series("time", moments)).sort("time", maintain_order=True)
    return right


def _as_of(
    left: pl.DataFrame, right: pl.DataFrame, strategy: str, by_entity: bool, tolerance: float | None, exact: bool = True
) -> pl.DataFrame:
    return left.sort("time").join_asof(
        right if by_entity else right.drop("entity"),
        on="time",
        by="entity" if by_entity else None,
        strategy=strategy,  # type: ignore[arg-type]
        tolerance=tolerance,
        allow_exact_matches=exact,
        check_sortedness=False,
    )
