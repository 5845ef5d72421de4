"""What a window is labelled with: a column at its end, or what comes after it; NaN where that is not known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsite.telemetry.table import Table
from fedsite.telemetry.task_learning import Label


def of_windows(
    table: Table,
    run: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    label: Label,
    step: float | None,
) -> NDArray[np.float64]:
    """The label of each window.

    Args:
        run: [rows], runs of rows without a break.
        starts, ends: [windows], first and last row of each.
        step: the sampling step in units of time, or None without a clock.

    Returns:
        [windows] float64, NaN where the label is not known.
    """
    if label.kind == "none":
        return np.zeros(len(ends))
    if label.kind == "horizon":
        found = _ahead(table, run, ends, label, step)
    elif label.at == "any":
        found = _any(table.label, starts, ends)
    else:
        found = table.label[ends]
    return found if label.maximum is None else np.minimum(found, label.maximum)


def _any(values: NDArray[np.float64], first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 where a value from `first` to `last` is nonzero, 0 where all are zero, NaN where that cannot be said."""
    unknown = np.isnan(values)
    nonzero = np.concatenate([[0], np.cumsum((values != 0) & ~unknown)])
    holes = np.concatenate([[0], np.cumsum(unknown)])
    seen = nonzero[last + 1] - nonzero[first] > 0
    return np.where(seen, 1.0, np.where(holes[last + 1] - holes[first] > 0, np.nan, 0.0))


def _ahead(
    table: Table, run: NDArray[np.int64], ends: NDArray[np.int64], label: Label, step: float | None
) -> NDArray[np.float64]:
    target = ends + label.ahead
    last = np.searchsorted(run, run[ends], side="right") - 1  # last row of the window's run
    inside = target <= last
    if label.reduce == "any":
        # Seen is seen, even where the record ends before the horizon does; unseen is then unknown.
        found = _any(table.label, np.minimum(ends + 1, last), np.minimum(target, last))
        found = np.where(ends == last, np.nan, found)
        return np.where(inside | (found == 1.0), found, np.nan)
    target = np.minimum(target, last)
    found = np.where(inside, table.label[target], np.nan)
    if step is not None:
        late = np.abs(table.time[target] - table.time[ends] - label.ahead * step) > 0.5 * step
        found = np.where(late, np.nan, found)
    return found
