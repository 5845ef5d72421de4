"""Irregular and missing readings: runs of rows that a window may span, gaps filled as the task says and no further."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsite.telemetry.schema import Channel
from fedsite.telemetry.table import Table
from fedsite.telemetry.task_document import Gap, Missing

JITTER = 0.5  # of a sampling step: timestamps that differ by less count as the same step


def runs(table: Table, step: float | None, longest: int) -> NDArray[np.int64]:
    """Number the runs of rows without a break: same entity, same part, no gap of more than `longest` steps.

    Args:
        step: the sampling step in units of time; None: rows have no clock, so there are no gaps.

    Returns:
        [rows] int64, from 0, growing.
    """
    if not len(table):
        return np.zeros(0, dtype=np.int64)
    breaks = np.diff(table.entity) != 0
    breaks |= table.held[1:] != table.held[:-1]
    if step is not None:
        breaks |= np.diff(table.time) > (longest + JITTER) * step
    return np.concatenate([[0], np.cumsum(breaks)])


def fill(table: Table, step: float, gap: Gap) -> Table:
    """Put readings on the grid of `step` and fill the gaps of up to `gap.longest` steps; filled rows are not `real`.

    Of two readings within one step of the grid the later one stays.
    """
    if not len(table) or gap.policy == "drop":
        return table
    run = runs(table, step, gap.longest)
    first = np.searchsorted(run, np.arange(run[-1] + 1))
    offset = np.rint((table.time - table.time[first][run]) / step).astype(np.int64)
    last = np.append(first[1:], len(run)) - 1
    size = offset[last] + 1
    start = np.cumsum(size) - size
    position = start[run] + offset
    source = np.full(int(size.sum()), -1, dtype=np.int64)
    source[position] = np.arange(len(table))
    real = source >= 0
    filled = table.take(np.maximum.accumulate(source))
    values, label, time = filled.values, filled.label, filled.time.copy()
    owner = np.repeat(np.arange(len(size)), size)
    time[~real] = (table.time[first][owner] + (np.arange(len(source)) - start[owner]) * step)[~real]
    if gap.policy == "interpolate":
        grid, known = np.arange(len(source)), source[real]
        columns = [np.interp(grid, np.flatnonzero(real), table.values[known, c]) for c in range(values.shape[1])]
        values = np.stack(columns, axis=1).astype(np.float32)
    label = np.where(real, label, np.nan)
    return Table(
        values=values,
        time=time,
        entity=filled.entity,
        entities=table.entities,
        label=label,
        held=filled.held,
        real=real,
        origin=table.origin,
    )


def complete(
    values: NDArray[np.float32], run: NDArray[np.int64], channels: Sequence[Channel], missing: Missing
) -> NDArray[np.float32]:
    """Fill channels without a value, each by its own policy, within runs and as far as it reaches; the rest stays NaN.

    Args:
        values: [rows, channel].
        run: [rows], from `runs`.
    """
    holes = np.isnan(values)
    if not holes.any():
        return values
    values = values.copy()
    for column in np.flatnonzero(holes.any(axis=0)).tolist():
        channel = channels[column]
        policy = channel.missing or missing.policy
        if policy == "middle":
            values[holes[:, column], column] = (channel.minimum + channel.maximum) / 2
        elif policy == "minimum":
            values[holes[:, column], column] = channel.minimum
        elif policy != "drop":
            values[:, column] = _bridge(values[:, column], run, missing.longest, line=policy == "interpolate")
    return values


def _bridge(column: NDArray[np.float32], run: NDArray[np.int64], longest: int, *, line: bool) -> NDArray[np.float32]:
    rows = np.arange(len(column))
    known = ~np.isnan(column)
    before = np.maximum.accumulate(np.where(known, rows, -1))
    same = (before >= 0) & (run[np.maximum(before, 0)] == run)
    if not line:
        return np.where(~known & same & (rows - before <= longest), column[np.maximum(before, 0)], column)
    after = np.minimum.accumulate(np.where(known, rows, len(column))[::-1])[::-1]
    inside = same & (after < len(column)) & (run[np.minimum(after, len(column) - 1)] == run)
    reach = inside & (after - before - 1 <= longest)
    if not known.any():
        return column
    drawn = np.interp(rows, rows[known], column[known]).astype(np.float32)
    return np.where(~known & reach, drawn, column)
