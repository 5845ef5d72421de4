"""Where one site's data is: the site's own business, never the plan's."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from fedsite.telemetry.errors import Code, TelemetryError
from fedsite.telemetry.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLocation:
    """What a site's settings say about its data.

    `path` is the site's own file or folder; without it, the task's file below the data folder is used, of which `site`
    (a name, or a number from 0 in order of names) is this site's part. `columns` maps the task's names to the file's.
    """

    path: Path | None = None
    site: str | int | None = None
    columns: dict[str, str] = field(default_factory=dict)
    seed: int = 0  # of synthetic data only
    oldest_s: float | None = None  # seconds that the newest reading may be old; None: any age

    def source(self, task: Task) -> Path:
        """The file or folder to read.

        Raises:
            TelemetryError: neither the site nor the task names one.
        """
        if self.path is not None:
            return Path(self.path).expanduser()
        if task.data.file is None:
            raise TelemetryError(
                f"task {task.name} has generated data and no file",
                next_step="data.path=FILE_OR_FOLDER",
                code=Code.MISSING,
            )
        return data_root() / task.data.file

    def name(self, task: Task) -> str:
        """What messages call the data: a file, a folder, or a generator."""
        if self.path is None and task.data.file is None:
            return f"synthetic {task.data.generator}"
        return str(self.path if self.path is not None else task.data.file)

    def folder(self, task: Task) -> Path:
        """Where files beside the site's data (context, events) are."""
        if self.path is None and task.data.file is None:
            return data_root()
        source = self.source(task)
        return source if source.is_dir() else source.parent

    def number(self) -> int:
        """The site as a number: of `site-3`, 3."""
        if isinstance(self.site, int):
            return self.site
        digits = "".join(character for character in str(self.site or "") if character.isdigit())
        return int(digits) if digits else 0


def data_root() -> Path:
    """The data folder: `FEDSITE_DATA`, else `shared/data` beside the repository or the working directory.

    Raises:
        TelemetryError: `FEDSITE_DATA` names no folder, or there is none to be found.
    """
    setting = os.environ.get("FEDSITE_DATA")
    beside = [Path(__file__).resolve().parents[2], Path.cwd().resolve().parent]
    candidates = [Path(setting).expanduser()] if setting else [folder / "shared" / "data" for folder in beside]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise TelemetryError(
        f"FEDSITE_DATA is {setting}, which is no folder" if setting else "there is no data folder",
        allowed="a folder with the tasks' files (docs/tasks.md says which and where they come from)",
        next_step="data.path=FILE_OR_FOLDER, or export FEDSITE_DATA=FOLDER; task=pump needs no file",
        code=Code.MISSING,
    )
