"""From a task and a site's location to windows ready for training: the one door to a site's data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.errors import CHECK, Code, TelemetryError
from fedsite.telemetry.location import DataLocation, data_root
from fedsite.telemetry.task import Task

__all__ = ["DataLocation", "data_root", "load_site", "normalise", "site_names"]


def load_site(task: Task, location: DataLocation) -> SiteData:
    """Read, check, split and window one site's data.

    Raises:
        TelemetryError: data is missing, unreadable, outside the task's schema, or too little.
    """
    from fedsite.telemetry import sources, sources_files, splits, windows

    with sources_files.readable(location.name(task)):
        table = sources.load_table(task, location)
    table = splits.assign(table, task)
    train, holdout = windows.cut(table, task)
    if len(train) < task.window.minimum:
        raise TelemetryError(
            f"{table.origin}: {len(train)} training windows of {task.window.length} rows ({len(table)} rows)",
            allowed=f"at least {task.window.minimum}",
            next_step=f"{CHECK}; give more data, or a shorter window.length",
            code=Code.TOO_FEW,
        )
    bounds = np.array(task.feature_bounds, dtype=np.float32)
    return SiteData(
        train=train,
        holdout=holdout,
        features=task.feature_names,
        minimum=bounds[:, 0],
        maximum=bounds[:, 1],
        overlap=task.overlap,
    )


def site_names(task: Task, location: DataLocation) -> list[str]:
    """Names of the sites that the location's file (or the task's generator) holds.

    Raises:
        TelemetryError: the file is missing or cannot be read.
    """
    if task.data.source == "synthetic" and location.path is None:
        from fedsite.telemetry import synthetic

        return [f"{task.data.generator}-{number}" for number in range(task.data.sites or synthetic.SITES)]
    from fedsite.telemetry import sources, sources_files

    with sources_files.readable(location.name(task)):
        return sources.site_names(task, location)


def normalise(
    windows: Windows, mean: NDArray[np.float32], scale: NDArray[np.float32], *, label_scale: float = 1.0
) -> Windows:
    """Windows as a model takes them: x' = (x - mean) / scale; a regression's y' = y / label_scale.

    Args:
        mean, scale: [feature].
    """
    x = (windows.x - mean.astype(np.float32)) / scale.astype(np.float32)
    y = windows.y
    if label_scale != 1.0 and np.issubdtype(y.dtype, np.floating):
        y = (y.astype(np.float32) / np.float32(label_scale)).astype(np.float32)
    return replace(windows, x=x.astype(np.float32, copy=False), y=y)
