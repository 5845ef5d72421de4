"""Tables of a simulation as CSV and Parquet: one value a column, one row a round, a site or a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsite.protocol.storage import storage_errors


def write(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Write `name.csv` and `name.parquet` whole; the columns are those of all rows, in order of appearance.

    Raises:
        StorageError: the disk is full or read-only.
    """
    import polars as pl

    columns = list(dict.fromkeys(key for row in rows for key in row))
    frame = pl.DataFrame({key: _column(row.get(key) for row in rows) for key in columns}, strict=False)
    written = []
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for suffix in ("csv", "parquet"):
            path = folder / f"{name}.{suffix}"
            half = folder / f".{name}.{suffix}.part"
            frame.write_csv(half) if suffix == "csv" else frame.write_parquet(half)
            half.replace(path)
            written.append(path)
    return written


def frame(columns: Mapping[str, Any]) -> Any:
    """A polars DataFrame of columns."""
    import polars as pl

    return pl.DataFrame(dict(columns))


def read(path: Path) -> dict[str, list[Any]]:
    """The columns of a Parquet file that `write` wrote.

    Raises:
        StorageError: it is missing or cannot be read.
    """
    import polars as pl

    with storage_errors(path):
        found: dict[str, list[Any]] = pl.read_parquet(path).to_dict(as_series=False)
    return found


def _column(values: Iterable[Any]) -> list[Any]:
    """Of one type: whole numbers and floats mixed are floats, anything mixed with text is text."""
    found = list(values)
    kinds = {type(value) for value in found if value is not None}
    if kinds <= {int, float} and float in kinds:
        return [None if value is None else float(value) for value in found]
    if len(kinds) > 1 or kinds & {list, tuple, dict}:
        return [None if value is None else str(value) for value in found]
    return found
