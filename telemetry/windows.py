"""Windows over runs of readings: no window spans a gap, an entity's end or the cut between training and holdout."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fedsite.telemetry import features, gaps, labels
from fedsite.telemetry.dataset import Windows
from fedsite.telemetry.table import Table
from fedsite.telemetry.task import Task

CHUNK = 1 << 19  # numbers in the windows that features are made from at a time


def cut(table: Table, task: Task) -> tuple[Windows, Windows]:
    """Training and holdout windows of a table whose rows have their part.

    Windows without a known label are left out, but for reconstruction, where the label is only ground truth.
    """
    step = task.rate.step if task.data.time is not None else None
    window = task.window
    if step is not None:
        table = gaps.fill(table, step, window.gap)
    if window.pad == "edge" and window.length > 1:
        table = _padded(table, gaps.runs(table, step, window.gap.longest), window.length, task.rate.step)
    run = gaps.runs(table, step, window.gap.longest)
    values = gaps.complete(table.values, run, task.single_channels, window.missing)
    starts = _starts(values, run, table.real, window.length, window.stride)
    ends = starts + window.length - 1
    found = labels.of_windows(table, run, starts, ends, task.label, step)
    known = ~np.isnan(found)
    if task.label.kind == "self":
        found = np.where(known, found, 0.0)
    else:
        starts, ends, found = starts[known], ends[known], found[known]
    held = table.held[ends]
    chosen = np.flatnonzero(held)
    if task.split.holdout_windows == "last" and len(chosen):
        owner = table.entity[ends[chosen]]
        chosen = chosen[np.append(owner[1:] != owner[:-1], True)]
    return _windows(table, values, task, starts, found, np.flatnonzero(~held)), _windows(
        table, values, task, starts, found, chosen
    )


def _starts(
    values: NDArray[np.float32], run: NDArray[np.int64], real: NDArray[np.bool_], length: int, stride: int
) -> NDArray[np.int64]:
    """First rows of the windows that lie in one run, hold no NaN and end on a real reading."""
    if len(run) < length:
        return np.zeros(0, dtype=np.int64)
    starts = np.arange(len(run) - length + 1)
    ends = starts + length - 1
    holes = np.concatenate([[0], np.cumsum(np.isnan(values).any(axis=1))])
    first = np.searchsorted(run, np.arange(run[-1] + 1))
    fits = (run[starts] == run[ends]) & (holes[ends + 1] == holes[starts]) & real[ends]
    return starts[fits & ((starts - first[run[starts]]) % stride == 0)]


def _padded(table: Table, run: NDArray[np.int64], length: int, step: float) -> Table:
    """Runs shorter than a window, padded at the front with their first row."""
    if not len(run):
        return table
    size = np.bincount(run)
    first = np.cumsum(size) - size
    need = np.maximum(length - size, 0)
    if not need.any():
        return table
    # Each short run's first row is repeated: `need` extra copies before it, at earlier steps, none of them real.
    copies = np.ones(len(run), dtype=np.int64)
    copies[first] += need
    index = np.repeat(np.arange(len(run)), copies)
    wide = table.take(index)
    place = np.arange(len(index)) - (np.cumsum(copies) - copies)[index]
    behind = copies[index] - 1 - place
    return Table(
        values=wide.values,
        time=wide.time - behind * step,
        entity=wide.entity,
        entities=wide.entities,
        label=wide.label,
        held=wide.held,
        real=wide.real & (behind == 0),
        origin=wide.origin,
    )


def _windows(
    table: Table,
    values: NDArray[np.float32],
    task: Task,
    starts: NDArray[np.int64],
    found: NDArray[np.float64],
    chosen: NDArray[np.int64],
) -> Windows:
    ends = starts[chosen] + task.window.length - 1
    return Windows(
        x=_inputs(values, task, starts[chosen]),
        y=_targets(found[chosen], task),
        entity=table.entity[ends],
        entities=table.entities,
        time=table.time[ends],
    )


def _inputs(values: NDArray[np.float32], task: Task, starts: NDArray[np.int64]) -> NDArray[np.float32]:
    time, width = task.input_shape
    if not len(starts):
        return np.zeros((0, time, width), dtype=np.float32)
    view = sliding_window_view(values, task.window.length, axis=0)  # [rows - length + 1, channel, length]
    if not task.features:
        return np.ascontiguousarray(view[starts].transpose(0, 2, 1)).reshape(len(starts), time, width)
    rows = max(1, CHUNK // (view.shape[1] * view.shape[2]))
    parts = [features.derive(view[starts[i : i + rows]].transpose(0, 2, 1), task) for i in range(0, len(starts), rows)]
    return np.concatenate(parts)


def _targets(found: NDArray[np.float64], task: Task) -> NDArray[np.generic]:
    if task.loss == "mse":
        return found[:, None].astype(np.float32)
    if task.loss in ("reconstruction", "binary_cross_entropy"):
        return (found != 0).astype(np.int64)
    return found.astype(np.int64)
