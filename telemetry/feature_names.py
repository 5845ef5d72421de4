"""Names and public bounds of rolling features: what follows from the channels' ranges alone, without any data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from fedsite.telemetry.task_document import Feature

Bounds = tuple[float, float]


def columns(features: Sequence[Feature], channels: Sequence[str]) -> Iterator[tuple[Feature, str, int]]:
    """Yield (feature, channel, index) of every derived column, in order; index counts a feature's bands or lags."""
    for feature in features:
        for index in range(max(1, len(feature.bands), len(feature.steps))):
            for channel in feature.channels or channels:
                yield feature, channel, index


def derived_names(features: Sequence[Feature], channels: Sequence[str]) -> tuple[str, ...]:
    """Names of the derived columns: `temperature.mean`, `current.lag3`, `vibration.band10-50`."""
    return tuple(f"{channel}.{_suffix(feature, index)}" for feature, channel, index in columns(features, channels))


def derived_bounds(
    features: Sequence[Feature], channels: Sequence[str], bounds: Sequence[Bounds], length: int
) -> tuple[Bounds, ...]:
    """Bounds of the derived columns for windows of `length` rows of channels within `bounds`."""
    known = dict(zip(channels, bounds, strict=True))
    return tuple(
        _tighter(feature, *_bounds(feature.kind, *known[channel], length))
        for feature, channel, _ in columns(features, channels)
    )


def _suffix(feature: Feature, index: int) -> str:
    if feature.kind == "band":
        low, high = feature.bands[index]
        return f"band{low:g}-{high:g}"
    return f"lag{feature.steps[index]}" if feature.kind == "lag" else feature.kind


def _tighter(feature: Feature, low: float, high: float) -> Bounds:
    """What the task's author knows about the feature beats what the channels' ranges imply."""
    low = low if feature.minimum is None else max(low, min(feature.minimum, high))
    high = high if feature.maximum is None else min(high, max(feature.maximum, low))
    return low, high


def _bounds(kind: str, low: float, high: float, length: int) -> Bounds:
    span = high - low
    if kind == "std":
        return 0.0, span / 2  # Popoviciu's inequality
    if kind == "range":
        return 0.0, span
    if kind == "rms":
        largest = max(abs(low), abs(high))
        return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), largest
    if kind == "rate":
        return -span / (length - 1), span / (length - 1)
    if kind == "slope":
        # The steepest line belongs to a step at the window's middle: weights of one sign each side sum to Σ|t|/2.
        times = [index - (length - 1) / 2 for index in range(length)]
        steepest = span / 2 * math.fsum(abs(t) for t in times) / math.fsum(t * t for t in times)
        return -steepest, steepest
    if kind == "band":
        return 0.0, (span / 2) ** 2  # all bands together are the variance
    return low, high
