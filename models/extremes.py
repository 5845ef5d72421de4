"""Running a tapped graph over windows: the largest and smallest value of every tensor, per privacy unit. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsite.models import metrics, runtime
from fedsite.protocol.errors import IntegrityError

Floats = NDArray[np.float64]

TAP = "tap_"  # before a tensor's name: the output that shows it
_BATCH = 256  # windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Extremes:
    """Shapes: T tensors, U units; `high`, `low` [T, U]; `score` [U], each unit's largest score (0 unless asked)."""

    high: Floats
    low: Floats
    score: Floats


def of(
    graph: bytes, names: list[str], x: NDArray[np.floating], owner: NDArray[np.integer], *, isolated: bool, scores: bool
) -> Extremes:
    """Run the graph.

    Args:
        graph: with a tap for each of `names`.
        names: tensors.
        x: normalised windows [windows, time, feature].
        owner: the unit of each window [windows], from 0 without gaps.
        isolated: run the windows of each unit apart from all others'.
        scores: also compare the first output with the input.

    Raises:
        IntegrityError: the graph is not one of our export's kind (`runtime.Session`), lacks a tap, names one twice, or,
            where units are not apart, does not run.
    """
    session = runtime.Session(graph)
    outputs = session.names
    check_taps(names, outputs)
    wanted = [f"{TAP}{name}" for name in names] + ([outputs[0]] if scores else [])
    units = int(owner.max(initial=-1)) + 1
    high, low, largest = np.full((len(names), units), -np.inf), np.full((len(names), units), np.inf), np.zeros(units)
    for index in _batches(owner, session.batch(_BATCH), isolated):
        batch = np.ascontiguousarray(x[index], np.float32)
        try:
            top, bottom, score = _seen(session.run(wanted, batch), batch, isolated, scores)
        except Exception as error:
            if not isolated:
                raise IntegrityError(f"the calibration graph does not run ({type(error).__name__})") from error
            # A refusal would tell, exactly and for free, whose data this graph of the centre's cannot take: such a unit
            # is out of range everywhere, which is within what the noise hides.
            out = np.full((len(names), len(index)), np.inf)
            top, bottom, score = out, -out, np.full(len(index), np.inf)
        for row in range(len(names)):
            np.maximum.at(high[row], owner[index], top[row])
            np.minimum.at(low[row], owner[index], bottom[row])
        if scores:
            np.maximum.at(largest, owner[index], score)
    return Extremes(high=high, low=low, score=largest)


def check_taps(names: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuse tensors that a graph with these outputs does not show.

    Raises:
        IntegrityError: it lacks one, or one is named twice.
    """
    missing = [name for name in names if f"{TAP}{name}" not in outputs]
    if len(set(names)) != len(names):
        raise IntegrityError(f"{len(names)} tensors to show, some of them twice", allowed="each tensor once")
    if missing:
        raise IntegrityError(f"calibration graph lacks tensor {missing[0]:.80}", allowed=", ".join(outputs))


def _seen(values: list[Any], batch: NDArray[np.float32], isolated: bool, scores: bool) -> tuple[Floats, Floats, Floats]:
    """Largest and smallest number of each tensor in each window [T, windows], and the windows' scores [windows]."""
    tensors = values[:-1] if scores else values
    pairs = [_per_window(value, len(batch), apart=isolated) for value in tensors]
    top, bottom = (np.array([pair[side] for pair in pairs]).reshape(len(pairs), len(batch)) for side in (0, 1))
    score = np.nan_to_num(metrics.anomaly_score(batch, values[-1]), nan=np.inf) if scores else np.zeros(0)
    return top, bottom, score


def _batches(owner: NDArray[np.integer], size: int, isolated: bool) -> list[NDArray[np.intp]]:
    order = np.argsort(owner, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(owner))[:-1]) if isolated and len(owner) else [order]
    return [part[start : start + size] for part in parts for start in range(0, len(part), size)]


def _per_window(value: NDArray[np.floating], windows: int, *, apart: bool) -> tuple[Floats, Floats]:
    """Largest and smallest number of each window; NaN counts as out of range on both sides.

    A recurrence's tensors are [time, windows, …], all others [windows, …]. Where neither fits, or where units run apart
    so that it does not matter, all windows share the whole tensor's extremes.
    """
    if not apart and value.ndim >= 1 and value.shape[0] == windows:
        flat = value.reshape(windows, -1)
    elif not apart and value.ndim >= 2 and value.shape[1] == windows:
        flat = np.moveaxis(value, 1, 0).reshape(windows, -1)
    else:
        flat = np.broadcast_to(value.reshape(1, -1), (windows, value.size))
    return (
        np.nan_to_num(flat.max(axis=1).astype(np.float64), nan=np.inf),
        np.nan_to_num(flat.min(axis=1).astype(np.float64), nan=-np.inf),
    )
