"""From a site's files to its table: which rows are the site's, which train, and every column as checked numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedsite.telemetry import limits, sources_columns, sources_files, sources_joins
from fedsite.telemetry.errors import CHECK, Code, TelemetryError
from fedsite.telemetry.fields import nearest
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.sources_files import Raw
from fedsite.telemetry.table import Table
from fedsite.telemetry.task import Task


def load_table(task: Task, location: DataLocation) -> Table:
    """Read one site's rows, sorted by entity, part and time, with context and events joined and ranges enforced.

    Raises:
        TelemetryError: whatever is wrong with the files, columns, values or the site's name.
    """
    raw = open_raw(task, location)
    rows, held = select(task, location, raw)
    if not len(rows):
        raise TelemetryError(f"{raw.origin}: no rows for site {location.site}", next_step=CHECK, code=Code.TOO_FEW)
    frame = raw.frame[rows] if raw.frame.height else raw.frame
    time = sources_columns.times(frame, task.data.time, len(rows), raw.origin)
    names, entity = entities(task, frame, len(rows), location)
    joined = sources_joins.join(task, location, frame, names, entity, time)
    values = np.empty((len(rows), len(task.channel_names)), dtype=np.float32)
    column = 0
    for channel in task.channels:
        width = channel.count or 1
        if channel.name in raw.blocks:
            values[:, column : column + width] = sources_columns.block(
                raw.blocks[channel.name][rows], channel, raw.origin
            )
        else:
            for offset, single in enumerate(channel.expand()):
                extra = joined.get(single.name)
                numbers = (
                    sources_columns.numbers(frame, single, raw.units.get(single.name), raw.origin)
                    if extra is None
                    else extra
                )
                with np.errstate(over="ignore"):  # what no float32 holds is out of any range
                    values[:, column + offset] = numbers
        column += width
    table = Table(
        values=limits.enforce(values, task.single_channels, raw.origin),
        time=time,
        entity=entity,
        entities=names,
        label=_label(task, frame, joined, len(rows), raw.origin),
        held=held,
        real=np.ones(len(rows), dtype=bool),
        origin=raw.origin,
    )
    return _in_order(table, task)


def site_names(task: Task, location: DataLocation) -> list[str]:
    """Names of the sites whose training rows the file holds, in natural order (site 2 before site 10).

    Raises:
        TelemetryError: the file cannot be read.
    """
    column = task.data.site_column
    if column is None:
        return [location.source(task).stem]
    kind, files = _files(task, location)
    split = task.split
    needed = [*task.data.where, *([split.column] if split.kind == "column" and split.column else [])]
    return _sites(task, column, sources_files.read(kind, files, [column, *needed], [], location.columns))


def _sites(task: Task, column: str, raw: Raw) -> list[str]:
    frame = raw.frame.filter(_kept(task, raw))
    if task.split.shared and task.split.column:
        # Rows of a shared test set may stand under a name that is no site.
        frame = frame.filter(_equals(task.split.column, task.split.train))
    names = sources_columns.texts(frame[column]).unique().to_list()
    return sorted((str(name) for name in names if name is not None), key=_natural)


def _files(task: Task, location: DataLocation) -> tuple[str, list[Path]]:
    joined = sources_joins.files(task, location.folder(task))
    return sources_files.find(location.source(task), task.data.format, joined)


def _shaped(task: Task, raw: Raw) -> Raw:
    """Arrays with the shape the task has for them: a column, or a block of numbered channels.

    Raises:
        TelemetryError: the other one.
    """
    wide = {channel.name for channel in task.channels if channel.count is not None}
    wrong = [name for name in raw.blocks if name not in wide] + [name for name in wide if raw.has(name)]
    if not wrong:
        return raw
    raise TelemetryError(
        f"{raw.origin}: array {wrong[0]} has {'one dimension' if wrong[0] in wide else 'several dimensions'}",
        allowed="[rows, count] for a numbered channel, [rows] for every other column",
        next_step=CHECK,
        code=Code.TYPE,
        channel=wrong[0],
        count=len(raw),
    )


def open_raw(task: Task, location: DataLocation) -> Raw:
    """Every column the task reads, of all rows, as it stands in the files or comes from the generator.

    Raises:
        TelemetryError: the files are missing or unreadable, or lack a column.
    """
    data = task.data
    if data.source == "synthetic" and location.path is None:
        from fedsite.telemetry import synthetic

        generated = synthetic.generate(str(data.generator), location.number(), location.seed)
        return Raw(frame=pl.DataFrame(generated), origin=f"synthetic {data.generator}")
    kind, files = _files(task, location)
    required, optional = needed(task, location, kind)
    known = {*required, *optional}
    for name in location.columns:
        if name not in known:
            raise TelemetryError(
                f"data.columns.{name} names no column of task {task.name}",
                allowed=nearest(name, sorted(known)),
                next_step=f"data.columns.ONE_OF_THESE=ITS_NAME_IN_THE_FILE, or {CHECK}",
                code=Code.COLUMN,
                channel=name,
            )
    return _shaped(task, sources_files.read(kind, files, required, optional, location.columns))


def needed(task: Task, location: DataLocation, kind: str) -> tuple[list[str], list[str]]:
    """The task's names of the columns it cannot do without, and of those it reads where they are.

    Args:
        kind: the files' format.
    """
    split, data = task.split, task.data
    required = [*data.entity_columns, *([data.time] if data.time else [])]
    joined = sources_joins.names(task)
    for channel in task.channels:
        whole = kind == "npz" and channel.count is not None
        singles = [channel.name] if whole else [single.name for single in channel.expand()]
        required += [name for name in singles if name not in joined]
    optional: list[str] = []
    if split.kind == "column" and split.column:
        required += [split.column, *split.exclude]
    if task.label.column and task.label.column not in joined:
        # A site without ground truth can still train a reconstruction.
        (optional if task.label.kind == "self" and location.path is not None else required).append(task.label.column)
    optional += data.where
    if data.site_column:
        (required if location.path is None else optional).append(data.site_column)
    return required, optional


def select(task: Task, location: DataLocation, raw: Raw) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of the site, and which of them are held out where a column says so."""
    column, split = task.data.site_column, task.split
    mine = _mask(raw.frame, _kept(task, raw)) if raw.frame.height else np.ones(len(raw), dtype=bool)
    kept, names, site = mine, [""], ""
    several = column is not None and raw.has(column) and (location.path is None or location.site is not None)
    if several and column is not None:
        names = _sites(task, column, raw)
        site = _resolve(names, location, raw.origin)
        mine = mine & _mask(raw.frame, _equals(column, site))
    if split.kind != "column" or split.column is None:
        rows = np.flatnonzero(mine)
        return rows, np.zeros(len(rows), dtype=bool)
    held = kept & _mask(raw.frame, _equals(split.column, split.holdout))
    train = mine & _mask(raw.frame, _equals(split.column, split.train))
    for name, value in split.exclude.items():
        train &= ~_mask(raw.frame, _equals(name, value))
    if not split.shared:
        held = mine & held
    elif len(names) > 1:
        share = np.flatnonzero(held)[names.index(site) :: len(names)]
        held = np.zeros_like(held)
        held[share] = True
    rows = np.flatnonzero(train | held)
    return rows, held[rows]


def _resolve(names: list[str], location: DataLocation, origin: str) -> str:
    site = location.site
    if site is not None and str(site) in names:
        return str(site)
    if isinstance(site, int) and 0 <= site < len(names):
        return names[site]
    raise TelemetryError(
        f"{origin}: site {site!r} is not in it" if site is not None else f"{origin} holds {len(names)} sites",
        allowed=nearest(str(site), names[:60]),
        next_step="choose one: data.site=NAME",
        code=Code.SITE,
    )


def entities(
    task: Task, frame: pl.DataFrame, count: int, location: DataLocation
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of the entities, in natural order, and each row's index into them.

    Raises:
        TelemetryError: a row without an entity.
    """
    columns = task.data.entity_columns
    if not columns:
        return (str(location.site if location.site is not None else "site"),), np.zeros(count, dtype=np.int64)
    parts = [sources_columns.texts(frame[name]) for name in columns]
    key = pl.DataFrame(parts).select(pl.concat_str(pl.all(), separator="/")).to_series()
    if key.null_count():
        raise TelemetryError(
            f"column {', '.join(columns)} is empty in {key.null_count()} of {count} rows",
            allowed="a name",
            next_step=CHECK,
            code=Code.TYPE,
            channel=columns[0],
            count=key.null_count(),
        )
    names = key.unique(maintain_order=True).to_list()
    order = sorted(names, key=_natural)
    code = {name: index for index, name in enumerate(order)}
    return tuple(order), key.replace_strict(code, return_dtype=pl.Int64).to_numpy().astype(np.int64)


def _label(
    task: Task, frame: pl.DataFrame, joined: dict[str, NDArray[np.float64]], count: int, origin: str
) -> NDArray[np.float64]:
    column = task.label.column
    if column in joined:
        return joined[column]
    if column is None or column not in frame.columns:
        return np.full(count, np.nan)
    if task.label.classes:
        return sources_columns.classes(frame, column, task.label.classes, origin)
    return sources_columns.values(frame, column, origin)


def _in_order(table: Table, task: Task) -> Table:
    table = table.take(np.lexsort((table.time, table.held, table.entity)))
    same = (np.diff(table.time) == 0) & (np.diff(table.entity) == 0) & (table.held[1:] == table.held[:-1])
    if not same.any():
        return table
    if task.data.duplicates == "last":
        return table.take(np.flatnonzero(np.append(~same, True)))
    first = int(np.argmax(same))
    name = table.entities[table.entity[first]]
    raise TelemetryError(
        f"{table.origin}: {int(same.sum())} rows have the time of another row of their entity"
        f" (first: {name} at {table.time[first]:g})",
        allowed="each time once per entity, or data.duplicates: last in the task",
        next_step=CHECK,
        code=Code.TIME,
        channel=task.data.time or "",
        count=int(same.sum()),
    )


def _mask(frame: pl.DataFrame, expression: pl.Expr) -> NDArray[np.bool_]:
    return frame.select(expression.fill_null(False)).to_series().to_numpy().astype(bool)


def _kept(task: Task, raw: Raw) -> pl.Expr:
    """Rows that `data.where` keeps; a site's own file need not have the column."""
    kept = pl.repeat(True, pl.len())
    for name, wanted in task.data.where.items():
        if raw.has(name):
            kept = kept & pl.any_horizontal([_equals(name, value) for value in wanted])
    return kept


def _equals(column: str, value: str | int | bool) -> pl.Expr:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return pl.col(column).cast(pl.String) == text


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key that compares runs of digits as numbers."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|\D+", text)]
