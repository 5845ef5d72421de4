"""Opening a site's files: CSV, Parquet or npz, one file or a folder of them, with the columns a task asks for."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedsite.telemetry.errors import CHECK, Code, TelemetryError
from fedsite.telemetry.fields import nearest
from fedsite.telemetry.units import split_header

FILE_COLUMN = "@file"  # stands for the name of the file a row comes from, without its ending
SUFFIXES = {"csv": (".csv", ".csv.gz"), "parquet": (".parquet", ".pq"), "npz": (".npz",)}
NULLS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-"]
SEPARATORS = ",;\t|"
# What the readers raise on files that are cut, overwritten or of another kind than their name says.
_BAD_FILE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    OSError,
    ValueError,
    OverflowError,
    EOFError,
    BadZipFile,
    NotImplementedError,
    zlib.error,
    struct.error,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Rows as they stand in the files, under the task's names: single columns, and `blocks` of numbered ones.

    `blocks` are arrays [rows, count] (npz only); `units` are those that headers name, by column.
    """

    frame: pl.DataFrame
    origin: str
    blocks: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return next((len(block) for block in self.blocks.values()), self.frame.height)

    def has(self, name: str) -> bool:
        """Whether there is a single column of this name."""
        return name in self.frame.columns


@contextlib.contextmanager
def readable(origin: object) -> Iterator[None]:
    """Say which file it was where a reader, or a conversion of what it read, only says what it could not do.

    Raises:
        TelemetryError: anything of `_BAD_FILE` inside.
    """
    try:
        yield
    except _BAD_FILE as error:
        raise _unreadable(origin, error) from None


def find(path: Path, kind: str | None, besides: Collection[Path] = ()) -> tuple[str, list[Path]]:
    """The format and the files, in order of name, of a file or a folder, but for those `besides`.

    Raises:
        TelemetryError: nothing there, nothing of a known format in it, several formats mixed, or a part of the folder
            that cannot be listed.
    """
    with readable(path):
        files = _below(path) if path.is_dir() else [path] if path.is_file() else []
        if not files and not path.is_dir():
            raise TelemetryError(
                f"{path} is neither file nor folder" if path.exists() else f"{path} does not exist",
                allowed="a file or folder of CSV, Parquet or npz",
                next_step="data.path=FILE_OR_FOLDER, or put the data folder's path in FEDSITE_DATA",
                code=Code.MISSING,
            )
    files = [item for item in files if not {item, *item.parents} & set(besides)]
    found = {name: [item for item in files if item.name.lower().endswith(SUFFIXES[name])] for name in SUFFIXES}
    present = [name for name, items in found.items() if items]
    if kind is not None and (found[kind] or not (present or path.is_dir())):
        return kind, found[kind] or files
    if len(present) != 1:
        what = "holds " + " and ".join(present) + " files" if present else "holds no telemetry file"
        raise TelemetryError(
            f"{path} {what}",
            allowed="files of one format: .csv, .parquet or .npz",
            next_step=f"data.path=FILE_OR_FOLDER, or {CHECK}",
            code=Code.MISSING,
        )
    return present[0], found[present[0]]


def _below(folder: Path) -> list[Path]:
    """Every file of a folder, in order of name.

    Raises:
        OSError: a part of it cannot be listed, which would be missing without a word.
    """

    def stop(error: OSError) -> None:
        raise error

    found = [Path(place, name) for place, _, names in os.walk(folder, onerror=stop) for name in names]
    return sorted(path for path in found if path.is_file())


def read(
    kind: str, files: Sequence[Path], required: Iterable[str], optional: Iterable[str], names: Mapping[str, str]
) -> Raw:
    """Read columns of all files, one below the other; `optional` ones only where they are.

    Args:
        required, optional: the task's names.
        names: what the file calls them, where that differs; it may name the unit too (`T_oil [degF]`).

    Raises:
        TelemetryError: a file cannot be read, lacks a required column, or names another unit than the one before.
    """
    required = list(dict.fromkeys(name for name in required if name != FILE_COLUMN))
    wanted = list(dict.fromkeys([*required, *(name for name in optional if name != FILE_COLUMN)]))
    origin = str(files[0] if len(files) == 1 else files[0].parent)
    if kind == "npz":
        return _read_npz(files[0], required, wanted, names)
    frames: list[pl.DataFrame] = []
    units: dict[str, str] = {}
    for file in files:
        available = columns(kind, file)
        found = {name: _match(name, names.get(name, name), available) for name in wanted}
        for name in required:
            if found[name] is None:
                raise missing_column(name, names.get(name, name), available, str(file))
        for name, match in found.items():
            if match is not None and kind == "csv" and f"{match[0]}_duplicated_0" in available:  # as polars names it
                raise TelemetryError(
                    f"{file}: column {match[0]} stands there more than once",
                    allowed="each column once",
                    next_step=f"name them apart in the file, then data.columns.{name}=THE_RIGHT_ONE, or {CHECK}",
                    code=Code.COLUMN,
                    channel=name,
                )
            unit = None if match is None else match[1]
            if unit is not None and units.setdefault(name, unit) != unit:
                raise TelemetryError(
                    f"{file}: column {name} is in {unit}, in the files before in {units[name]}",
                    allowed="one unit per column",
                    next_step=CHECK,
                    code=Code.UNIT,
                    channel=name,
                )
        chosen = [pl.col(match[0]).alias(name) for name, match in found.items() if match is not None]
        stem = file.name.partition(".")[0]
        try:
            frames.append(_scan(kind, file).select(chosen).collect().with_columns(pl.lit(stem).alias(FILE_COLUMN)))
        except _BAD_FILE as error:
            raise _unreadable(file, error) from None
    try:
        frame = pl.concat(frames, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise _unreadable(files[0].parent, error) from None
    return Raw(frame=frame, units=units, origin=origin)


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
    except _BAD_FILE as error:
        raise _unreadable(file, error) from None


def missing_column(name: str, text: str, available: Sequence[str], origin: str) -> TelemetryError:
    """The error of a column that is not there."""
    called = name if text == name else f"{name} (called {text})"
    return TelemetryError(
        f"{origin}: column {called} is missing",
        allowed=f"columns of the file: {nearest(text, sorted(available)[:60])}",
        next_step=f"data.columns.{name}=ITS_NAME_IN_THE_FILE, or {CHECK}",
        code=Code.COLUMN,
        channel=name,
    )


def _match(name: str, text: str, available: Sequence[str]) -> tuple[str, str | None] | None:
    """The file's column for a task's name, and the unit that its header or the site's mapping states."""
    if text in available:
        return text, split_header(text)[1] if text != name else None
    plain, unit = split_header(text)
    if plain in available:
        return plain, unit
    stated = [(column, split_header(column)[1]) for column in available if split_header(column)[0] == plain]
    return stated[0] if len(stated) == 1 and unit in (None, stated[0][1]) else None


def _scan(kind: str, file: Path) -> pl.LazyFrame:
    if kind == "parquet":
        return pl.scan_parquet(file, glob=False)
    with file.open("rb") as stream:
        head = b"" if file.name.endswith(".gz") else stream.readline(1 << 16)
    if b"\0" in head:
        raise ValueError("it is not text")
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end < len(head):  # a character that the limit cut in two is none
            raise ValueError("it is not UTF-8 text") from None
    separator = max(SEPARATORS, key=lambda sign: head.count(sign.encode()))
    # Text first: a value that is not a number is then named, not guessed at.
    return pl.scan_csv(file, infer_schema=False, null_values=NULLS, separator=separator, glob=False)


def _read_npz(file: Path, required: Sequence[str], wanted: Sequence[str], names: Mapping[str, str]) -> Raw:
    try:
        with np.load(file, allow_pickle=False) as archive:
            available = list(archive.files)
            arrays = {name: archive[names.get(name, name)] for name in wanted if names.get(name, name) in available}
    except (*_BAD_FILE, RuntimeError) as error:  # a zip that asks for a password
        raise _unreadable(file, error) from None
    for name in required:
        if name not in arrays:
            raise missing_column(name, names.get(name, name), available, str(file))
    if any(not array.ndim for array in arrays.values()) or len({len(array) for array in arrays.values()}) > 1:
        raise _unreadable(file, ValueError("its arrays differ in length"))
    flat = {name: _column(name, array, file) for name, array in arrays.items() if array.ndim == 1}
    blocks = {
        name: array.reshape(len(array), -1 if array.size else 0) for name, array in arrays.items() if array.ndim > 1
    }
    return Raw(frame=pl.DataFrame(flat), blocks=blocks, origin=str(file))


def _column(name: str, array: NDArray[np.generic], file: Path) -> NDArray[np.generic]:
    """An array as polars takes it."""
    if array.dtype.kind == "M":
        return array.astype("datetime64[us]")
    if array.dtype.kind in "biufSU":
        return array.astype(array.dtype.newbyteorder("="))
    raise TelemetryError(
        f"{file}: array {name} is of type {array.dtype}",
        allowed="numbers, text or times",
        next_step=CHECK,
        code=Code.TYPE,
        channel=name,
        count=len(array),
    )


def _unreadable(file: object, error: BaseException) -> TelemetryError:
    reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        file, reason = error.filename or file, error.strerror
    elif "more fields than defined" in reason:
        reason = "a line has more fields than the header"
    denied = isinstance(error, PermissionError)
    return TelemetryError(
        f"{file} cannot be read ({reason})",
        allowed="a readable CSV (UTF-8), Parquet or npz file",
        next_step=f"let this user read it (ls -l {file}), then {CHECK}" if denied else CHECK,
        code=Code.UNREADABLE,
    )
