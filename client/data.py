"""From the site's settings and a plan's task to the data it means: location, identity for the budget, and freshness."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsite.client.settings import Settings, absolute
from fedsite.protocol import documents, durations
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.task import Task


def location(settings: Settings, task: Task) -> DataLocation:
    """Where this site's data for `task` is."""
    source = settings.source(task.name)
    return DataLocation(
        path=absolute(source.path) if source.path else None,
        site=source.site,
        columns=dict(source.columns),
        seed=source.seed or 0,
        oldest_s=None if source.oldest is None else durations.seconds(source.oldest),
    )


def source_id(task: Task, where: DataLocation) -> str:
    """What the budget charges: the data itself, under whatever name the centre asks for it.

    A file is charged as a whole, whichever of its sites, rows or columns a run reads: too much rather than too little.
    A task that joins tables is charged on the folder that they and the readings lie in.

    Raises:
        TelemetryError: neither the site nor the task names any data.
    """
    if task.context or task.events:
        return os.path.realpath(where.folder(task))
    if where.path is None and task.data.file is None:
        return f"synthetic {task.data.generator or task.name}"
    return os.path.realpath(where.source(task))


def stamp(task: Task, where: DataLocation) -> tuple[Any, ...]:
    """What changes when the data does: names, sizes and times of the files it is read from, joined tables included."""
    generated = where.path is None and task.data.file is None
    folder = where.folder(task) if task.context or task.events else None
    read = [] if generated else [where.source(task)]
    tables = [table.file for table in task.context] + [table.file for table in task.events]
    read += [folder / table for table in tables if folder is not None]
    return tuple(_facts(path) for path in sorted({path for source in read for path in _files(source)}))


def _files(source: Path) -> list[Path]:
    return [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]


def _facts(path: Path) -> tuple[Any, ...]:
    """A file put in another's place with its size and time kept (rsync, cp -p) still has another change time."""
    try:
        status = path.stat()
    except OSError:
        return str(path), None
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def plain(where: DataLocation) -> dict[str, Any]:
    """A location as JSON, for the worker."""
    return {
        "path": None if where.path is None else str(where.path),
        "site": where.site,
        "columns": where.columns,
        "seed": where.seed,
        "oldest_s": where.oldest_s,
    }


def from_plain(value: Mapping[str, Any]) -> DataLocation:
    """The inverse of `plain`."""
    path = value["path"]
    return DataLocation(
        path=None if path is None else Path(path),
        site=value["site"],
        columns=dict(value["columns"]),
        seed=int(value["seed"]),
        oldest_s=value.get("oldest_s"),
    )


def key(task: Task, where: DataLocation) -> tuple[Any, ...]:
    """Two equal keys mean the same windows: the task's document, the location, and the files as they are now."""
    return documents.digest(task.document), documents.digest(plain(where)), stamp(task, where)
