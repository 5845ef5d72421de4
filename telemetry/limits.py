"""The schema's ranges, enforced: a reading outside is refused, clipped or dropped, as its channel says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsite.telemetry.errors import CHECK, Code, TelemetryError
from fedsite.telemetry.schema import Channel

TOLERANCE = 1e-6  # of the range: a bound written in decimal and a float32 reading of it may differ that much


def enforce(values: NDArray[np.float32], channels: Sequence[Channel], origin: str) -> NDArray[np.float32]:
    """Apply the channels' ranges to readings.

    Args:
        values: [rows, channel], NaN where missing.

    Returns:
        The same readings, those outside clipped or made NaN where the channel allows it.

    Raises:
        TelemetryError: a channel has no value at all, or a reading outside its range where that is refused.
    """
    if not len(values):
        return values
    low = np.array([channel.minimum for channel in channels])
    high = np.array([channel.maximum for channel in channels])
    slack = (high - low) * TOLERANCE + np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(np.float32))
    missing = np.isnan(values)
    for column in np.flatnonzero(missing.all(axis=0)).tolist():
        raise TelemetryError(
            f"{origin}: channel {channels[column].name} has no value in any of {len(values)} rows",
            allowed=f"numbers from {low[column]:g} to {high[column]:g} {channels[column].unit}",
            next_step=CHECK,
            code=Code.ALL_MISSING,
            channel=channels[column].name,
            count=len(values),
        )
    outside = ((values < low - slack) | (values > high + slack)) & ~missing
    if outside.any():
        values = values.copy()
    for column in np.flatnonzero(outside.any(axis=0)).tolist():
        channel, rows = channels[column], outside[:, column]
        if channel.outside == "refuse":
            raise _refusal(values[:, column], rows, channel, origin)
        if channel.outside == "missing":
            values[rows, column] = np.nan
    return np.clip(values, low.astype(np.float32), high.astype(np.float32)) if outside.any() else values


def _refusal(column: NDArray[np.float32], outside: NDArray[np.bool_], channel: Channel, origin: str) -> TelemetryError:
    first = int(np.argmax(outside))
    return TelemetryError(
        f"{origin}: channel {channel.name} is {column[first]:g} in row {first + 1}"
        f" ({int(outside.sum())} of {len(column)} rows outside its range)",
        allowed=f"{channel.minimum:g} to {channel.maximum:g} {channel.unit}",
        next_step=f"{CHECK}; is the unit {channel.unit}?",
        code=Code.RANGE,
        channel=channel.name,
        count=int(outside.sum()),
    )
