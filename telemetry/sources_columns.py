"""Single columns as numbers: what is not a number, time or known class is named with its value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fedsite.telemetry.errors import CHECK, Code, TelemetryError
from fedsite.telemetry.schema import Channel
from fedsite.telemetry.units import conversion, convertible


def numbers(frame: pl.DataFrame, channel: Channel, unit: str | None, origin: str) -> NDArray[np.float64]:
    """A channel's readings in its own unit, NaN where missing.

    Args:
        unit: the unit the file states; None: it states none, so it is taken for the channel's.

    Raises:
        TelemetryError: a value is not a number, or infinite; or the unit is not one that can be converted.
    """
    found = values(frame, channel.name, origin)
    if unit is not None:
        rule = conversion(unit, channel.unit)
        if rule is None:
            raise TelemetryError(
                f"{origin}: channel {channel.name} is in {unit}",
                allowed=", ".join(convertible(channel.unit)),
                next_step=f'say its unit: data.columns.{channel.name}="COLUMN [{channel.unit}]", or {CHECK}',
                code=Code.UNIT,
                channel=channel.name,
                count=len(found),
            )
        found = found * rule[0] + rule[1]
    infinite = np.isinf(found)
    if infinite.any():
        raise TelemetryError(
            f"{origin}: channel {channel.name} is infinite in row {int(np.argmax(infinite)) + 1}",
            allowed=f"{channel.minimum:g} to {channel.maximum:g} {channel.unit}",
            next_step=CHECK,
            code=Code.RANGE,
            channel=channel.name,
            count=int(infinite.sum()),
        )
    return found


def block(found: NDArray[np.generic], channel: Channel, origin: str) -> NDArray[np.float32]:
    """Readings of a numbered channel, [rows, count].

    Raises:
        TelemetryError: another count, or not numbers.
    """
    if found.shape[1] != channel.count or found.dtype.kind not in "biuf":
        raise TelemetryError(
            f"{origin}: channel {channel.name} has {found.shape[1]} columns of {found.dtype}",
            allowed=f"{channel.count} columns of numbers",
            next_step=CHECK,
            code=Code.TYPE,
            channel=channel.name,
            count=len(found),
        )
    return found.astype(np.float32)


def values(frame: pl.DataFrame, name: str, origin: str) -> NDArray[np.float64]:
    """A column as float64, NaN where empty.

    Raises:
        TelemetryError: a value is not a number.
    """
    series = frame[name]
    if series.dtype == pl.Boolean:
        series = series.cast(pl.Int8)
    elif series.dtype == pl.String:
        series = series.str.strip_chars().replace({"true": "1", "false": "0", "True": "1", "False": "0"})
    cast = _floats(series)
    if cast is None:
        raise _not_a_number(origin, name, f"of type {series.dtype}", 0, len(series))
    wrong = (cast.is_null() & series.is_not_null()).to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise _not_a_number(origin, name, repr(series[row]), row, int(wrong.sum()))
    return cast.fill_null(float("nan")).to_numpy().astype(np.float64)


def times(frame: pl.DataFrame, name: str | None, count: int, origin: str) -> NDArray[np.float64]:
    """A time column as seconds since 1970 UTC (dates) or as its own count (numbers); None: the row's number.

    Raises:
        TelemetryError: a value is no time, or missing.
    """
    if name is None:
        return np.arange(count, dtype=np.float64)
    series = frame[name]
    if series.dtype == pl.String:
        text = series.str.strip_chars()
        series = text.cast(pl.Float64, strict=False)
        if series.null_count() == len(series):
            try:
                series = text.str.to_datetime(strict=False, time_unit="us")
            except pl.exceptions.PolarsError:
                series = text.cast(pl.Float64, strict=False)
    if isinstance(series.dtype, pl.Datetime | pl.Date):
        if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone:
            series = series.dt.convert_time_zone("UTC")
        series = series.cast(pl.Datetime("us")).dt.timestamp("us").cast(pl.Float64) / 1e6
    cast = _floats(series)
    floats = np.full(count, np.nan) if cast is None else cast.fill_null(float("nan")).to_numpy().astype(np.float64)
    wrong = ~np.isfinite(floats)
    if wrong.any():
        row = int(np.argmax(wrong))
        value = f"of type {series.dtype}" if cast is None else repr(frame[name][row])
        raise TelemetryError(
            f"{origin}: time column {name} is {value} in row {row + 1} ({int(wrong.sum())} of {count} rows)",
            allowed="a number, or a date and time such as 2024-05-01T12:00:00; a time zone in all rows or in none",
            next_step=CHECK,
            code=Code.TIME,
            channel=name,
            count=int(wrong.sum()),
        )
    return floats


def classes(frame: pl.DataFrame, name: str, known: Sequence[str | int], origin: str) -> NDArray[np.float64]:
    """A column of class names as class indices, NaN where empty.

    Raises:
        TelemetryError: a value is none of the classes.
    """
    text = texts(frame[name]).str.strip_chars().str.strip_suffix(".0")
    indices = {str(value): float(index) for index, value in enumerate(known)}
    unknown = text.filter(~text.is_in(list(indices)))
    if len(unknown):
        raise TelemetryError(
            f"{origin}: column {name} holds class {unknown[0]!r:.80} ({len(unknown)} of {len(text)} rows)",
            allowed=", ".join(indices),
            next_step=CHECK,
            code=Code.CLASS,
            channel=name,
            count=len(unknown),
        )
    found = text.replace_strict(indices, default=None, return_dtype=pl.Float64)
    return found.fill_null(float("nan")).to_numpy().astype(np.float64)


def texts(series: pl.Series) -> pl.Series:
    """A column as text; what has no text (a list, a duration) stands as the name of its type."""
    try:
        return series.cast(pl.String)
    except pl.exceptions.PolarsError:
        return pl.Series(series.name, [str(series.dtype)] * len(series), dtype=pl.String)


def _floats(series: pl.Series) -> pl.Series | None:
    """As numbers, null where there is none; None where the type has no numbers."""
    if series.dtype.is_nested() or series.dtype == pl.Object:
        return None
    if series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    try:
        return series.cast(pl.Float64, strict=False)
    except pl.exceptions.PolarsError:
        return None


def _not_a_number(origin: str, name: str, value: str, row: int, count: int) -> TelemetryError:
    return TelemetryError(
        f"{origin}: column {name} is {value:.80} in row {row + 1}",
        allowed="numbers, with a decimal point",
        next_step=CHECK,
        code=Code.TYPE,
        channel=name,
        count=count,
    )
