"""Rolling features of a window: statistics, rate of change and power in frequency bands, all windows at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsite.telemetry.task import Task
from fedsite.telemetry.task_document import Feature

Numbers = NDArray[np.float64]


def derive(x: NDArray[np.float32], task: Task) -> NDArray[np.float32]:
    """The task's features of each window, in the order of `task.feature_names`.

    Args:
        x: [windows, time, channel], no NaN.

    Returns:
        [windows, 1, feature] float32.
    """
    index = {name: number for number, name in enumerate(task.channel_names)}
    wide = x.astype(np.float64)
    parts = []
    for feature in task.features:
        chosen = [index[name] for name in feature.channels] if feature.channels else list(index.values())
        parts += _columns(feature, wide[:, :, chosen], task.rate.seconds)
    found = np.concatenate(parts, axis=1)
    # Rounding may carry a feature past the bound that its channels' ranges prove.
    bounds = np.array(task.feature_bounds)
    return np.clip(found, bounds[:, 0], bounds[:, 1]).astype(np.float32)[:, None, :]


def _columns(feature: Feature, x: Numbers, seconds: float | None) -> list[Numbers]:
    kind = feature.kind
    if kind == "lag":
        return [x[:, -1 - step] for step in feature.steps]
    if kind == "band":
        return band_power(x, feature.bands, seconds or 1.0)
    if kind == "rate":
        return [(x[:, -1] - x[:, 0]) / (x.shape[1] - 1)]
    if kind == "slope":
        return [slope(x)]
    if kind == "rms":
        return [np.sqrt(np.mean(x * x, axis=1))]
    if kind == "range":
        return [x.max(axis=1) - x.min(axis=1)]
    if kind == "last":
        return [x[:, -1]]
    if kind == "mean":
        return [x.mean(axis=1)]
    if kind == "std":
        return [x.std(axis=1)]
    return [x.min(axis=1) if kind == "min" else x.max(axis=1)]


def slope(x: Numbers) -> Numbers:
    """Slope of the least-squares line, per sampling step.

    Args:
        x: [windows, time, channel].
    """
    times = np.arange(x.shape[1]) - (x.shape[1] - 1) / 2
    weights = times / np.sum(times * times)
    result: Numbers = np.tensordot(x, weights, axes=([1], [0]))
    return result


def band_power(x: Numbers, bands: tuple[tuple[float, float], ...], seconds: float) -> list[Numbers]:
    """Power in each band [low, high) Hz, one-sided, the mean removed: bands that cover all add up to the variance.

    Args:
        x: [windows, time, channel], one reading every `seconds`.
    """
    length = x.shape[1]
    spectrum = np.abs(np.fft.rfft(x - x.mean(axis=1, keepdims=True), axis=1) / length) ** 2
    spectrum[:, 1 : (length + 1) // 2] *= 2  # the negative frequencies; an even length's Nyquist bin has no twin
    frequency = np.fft.rfftfreq(length, seconds)
    return [spectrum[:, (frequency >= low) & (frequency < high)].sum(axis=1) for low, high in bands]
