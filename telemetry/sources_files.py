"""Opening a site's files: CSV, Parquet or npz, one file or a folder of them, with the columns a task asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedsite.telemetry.errors import CHECK, Code, TelemetryError
from fedsite.telemetry.fields import nearest

FILE_COLUMN = "@file"  # stands for the name of the file a row comes from, without its ending
SUFFIXES = {"csv": (".csv", ".csv.gz"), "parquet": (".parquet", ".pq"), "npz": (".npz",)}
NULLS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Rows as they stand in the files: single columns, and `blocks` of numbered ones ([rows, count], npz only)."""

    frame: pl.DataFrame
    blocks: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    origin: str

    def __len__(self) -> int:
        return next((len(block) for block in self.blocks.values()), self.frame.height)

    def has(self, name: str) -> bool:
        """Whether there is a single column of this name."""
        return name in self.frame.columns


def find(path: Path, kind: str | None) -> tuple[str, list[Path]]:
    """The format and the files, in order of name, of a file or a folder.

    Raises:
        TelemetryError: nothing there, nothing of a known format in it, or several formats mixed.
    """
    if not path.exists():
        raise TelemetryError(
            f"{path} does not exist",
            allowed="a file or folder of CSV, Parquet or npz",
            next_step="data.path=FILE_OR_FOLDER, or put the data folder's path in FEDSITE_DATA",
            code=Code.MISSING,
        )
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    found = {name: [item for item in files if item.name.lower().endswith(SUFFIXES[name])] for name in SUFFIXES}
    if kind is not None and (not path.is_dir() or found[kind]):
        return kind, found[kind] or files
    present = [name for name, items in found.items() if items]
    if len(present) != 1:
        what = "holds " + " and ".join(present) + " files" if present else "holds no telemetry file"
        raise TelemetryError(
            f"{path} {what}", allowed="files of one format: .csv, .parquet or .npz", next_step=CHECK, code=Code.MISSING
        )
    return present[0], found[present[0]]


def read(kind: str, files: Sequence[Path], required: Sequence[str], optional: Sequence[str], origin: str) -> Raw:
    """Read the named columns of all files, one below the other; `optional` ones only where they are.

    Raises:
        TelemetryError: a file cannot be read, or lacks a required column.
    """
    if kind == "npz":
        return _read_npz(files[0], required, optional)
    frames = [_read_frame(kind, file, required, optional) for file in files]
    try:
        return Raw(frame=pl.concat(frames, how="diagonal_relaxed"), origin=origin)
    except pl.exceptions.PolarsError as error:
        raise _unreadable(Path(origin), str(error).partition("\n")[0]) from None


def columns(kind: str, file: Path) -> list[str]:
    """Names of a file's columns.

    Raises:
        TelemetryError: it cannot be read.
    """
    try:
        if kind == "npz":
            with np.load(file, allow_pickle=False) as archive:
                return list(archive.files)
        return _scan(kind, file).collect_schema().names()
    except (pl.exceptions.PolarsError, OSError, ValueError, EOFError, BadZipFile) as error:
        raise _unreadable(file, str(error).partition("\n")[0]) from None


def missing_column(name: str, available: Sequence[str], origin: str) -> TelemetryError:
    """The error of a column that is not there."""
    return TelemetryError(
        f"{origin}: column {name} is missing",
        allowed=f"columns of the file: {nearest(name, sorted(available)[:60])}",
        next_step=f"data.columns.{name}=ITS_NAME_IN_THE_FILE, or {CHECK}",
        code=Code.COLUMN,
    )


def _scan(kind: str, file: Path) -> pl.LazyFrame:
    if kind == "csv":
        # Text first: a value that is not a number is then named, not guessed at.
        return pl.scan_csv(file, infer_schema=False, null_values=NULLS, truncate_ragged_lines=False)
    return pl.scan_parquet(file)


def _read_frame(kind: str, file: Path, required: Sequence[str], optional: Sequence[str]) -> pl.DataFrame:
    available = columns(kind, file)
    for name in required:
        if name not in available and name != FILE_COLUMN:
            raise missing_column(name, available, str(file))
    wanted = [name for name in dict.fromkeys([*required, *optional]) if name in available]
    try:
        frame = _scan(kind, file).select(wanted).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(file, str(error).partition("\n")[0]) from None
    return frame.with_columns(pl.lit(file.name.partition(".")[0]).alias(FILE_COLUMN))


def _read_npz(file: Path, required: Sequence[str], optional: Sequence[str]) -> Raw:
    try:
        with np.load(file, allow_pickle=False) as archive:
            available = list(archive.files)
            arrays = {name: archive[name] for name in {*required, *optional} if name in available}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise _unreadable(file, str(error).partition("\n")[0]) from None
    for name in required:
        if name not in arrays:
            raise missing_column(name, available, str(file))
    if len({len(array) for array in arrays.values()}) > 1:
        raise _unreadable(file, "its arrays differ in length")
    flat = {name: array for name, array in arrays.items() if array.ndim == 1}
    blocks = {name: array.reshape(len(array), -1) for name, array in arrays.items() if array.ndim > 1}
    return Raw(frame=pl.DataFrame(flat), blocks=blocks, origin=str(file))


def _unreadable(file: Path, reason: str) -> TelemetryError:
    return TelemetryError(
        f"{file} cannot be read ({reason[:200]})",
        allowed="a readable CSV, Parquet or npz file",
        next_step=CHECK,
        code=Code.UNREADABLE,
    )
