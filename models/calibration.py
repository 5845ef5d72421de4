"""Activation ranges for int8 without central data: sites add counts over fixed public bins, the centre reads ranges.

Counts add up over sites and can carry noise; minima and maxima could do neither. A privacy unit puts one count into
each row (the bin of its largest value, of minus its smallest) and one into the score histogram: `sensitivity`.

Shapes: T tensors to be quantized, B bins; `positive`, `negative` [T, B], `score` [B].
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import DataError

Floats = NDArray[np.float64]
Ranges = dict[str, tuple[float, float]]

_PER_OCTAVE = 4  # a range is at most 19 % wider than the data: a quarter of a bit
_OCTAVES = 12
EDGES: Floats = np.exp2(np.arange(-_OCTAVES * _PER_OCTAVE, _OCTAVES * _PER_OCTAVE + 1) / _PER_OCTAVE)
BINS = len(EDGES) + 1  # bin b holds EDGES[b-1] < value <= EDGES[b]; bin 0 also holds zero and less

_NOISY_MARGIN = 1.5  # what noise hides lies above what it shows; clipping hurts int8 more than a range too wide
_WIDEST = 4.0
_SPAN = 8.0
_TOGETHER = 2.0  # synthetic features move apart; real ones move together, and their sums reach further
_MISTAKE = 0.05  # chance that noise alone shifts any of the ranges upward


def with_taps(data: bytes) -> tuple[bytes, list[str]]:
    """The graph with every tensor that int8 will touch as one more output, and those tensors' names. Needs `onnx`."""
    from fedsite.models import taps

    return taps.add(data)


def counts(
    graph: bytes,
    names: list[str],
    x: NDArray[np.floating],
    *,
    unit: NDArray[np.integer] | None = None,
    scores: bool = False,
    isolated: bool = True,
) -> dict[str, Floats]:
    """What one site adds to the calibration.

    Args:
        graph: of `with_taps`.
        names: of `with_taps`.
        x: normalised training windows [windows, time, feature].
        unit: the entity of each window when the privacy unit is the entity; None: each window is a unit.
        scores: also the histogram of each unit's largest anomaly score (the graph is an autoencoder).
        isolated: run each unit alone, so that whatever the graph does, one unit changes its own counts only. A private
            run needs it; without privacy batches are faster and count the same.

    Raises:
        IntegrityError: the graph is not ONNX or lacks a tap.
    """
    from fedsite.models import extremes

    owner = np.arange(len(x)) if unit is None else np.unique(unit, return_inverse=True)[1]
    seen = extremes.of(graph, names, x, owner, isolated=isolated, scores=scores)
    found = {"positive": _one_hot(seen.high), "negative": _one_hot(-seen.low)}
    return found | ({"score": _one_hot(seen.score[None])[0]} if scores else {})


def sensitivity(tensors: int, *, scores: bool) -> float:
    """L2 change of all counts together when one privacy unit is added or removed: one count in each of their rows."""
    return math.sqrt(2 * tensors + (1 if scores else 0))


def ranges(total: Mapping[str, NDArray[np.floating]], names: list[str], *, noise: float = 0.0) -> Ranges:
    """Each tensor's range from summed counts; a tensor of which noise hides everything is left out.

    Args:
        total: summed `positive` and `negative`, perhaps noised.
        names: of `with_taps`.
        noise: standard deviation of the noise on each summed count; 0: counts are exact.

    Raises:
        DataError: the counts have another shape.
    """
    rows = {key: np.asarray(total[key], np.float64) for key in ("positive", "negative")}
    for key, value in rows.items():
        if value.shape != (len(names), BINS):
            raise DataError(f"calibration counts {key} of shape {list(value.shape)}", allowed=f"[{len(names)}, {BINS}]")
    floor = _floor(noise, 2 * max(len(names), 1))
    found: Ranges = {}
    for index, name in enumerate(names):
        high = _reach(rows["positive"][index], floor)
        low = _reach(rows["negative"][index], floor)
        if high is None or low is None:
            continue
        # Rare spikes would take the resolution from everything else: the middle unit keeps five of the eight bits.
        middle = 0.0 if noise > 0 else max(_middle(rows["positive"][index]), _middle(rows["negative"][index]))
        cap = _SPAN * middle if middle > 0 else math.inf
        found[name] = (-min(low, cap), max(min(high, cap), EDGES[0] if low == 0 else 0.0))
    return found


def estimate(graph: bytes, names: list[str], x: NDArray[np.floating]) -> Ranges:
    """Twice the ranges seen on nobody's data (`synthetic_inputs`): weaker than counts from the sites."""
    from fedsite.models import extremes

    seen = extremes.of(graph, names, x, np.zeros(len(x), np.int64), isolated=False, scores=False)
    return {
        name: (
            _TOGETHER * min(0.0, float(seen.low[row].min())),
            _TOGETHER * max(float(EDGES[0]), float(seen.high[row].max())),
        )
        for row, name in enumerate(names)
    }


def widened(found: Ranges, guess: Ranges) -> Ranges:
    """Ranges read through noise, stretched toward those of synthetic inputs, to four times their size at most.

    What noise hides is rare and large. Clipping it costs far more than a range too wide: a bit per doubling.
    """
    return {
        name: (
            min(low, max(guess.get(name, (low, high))[0], _WIDEST * low)),
            max(high, min(guess.get(name, (low, high))[1], _WIDEST * high)),
        )
        for name, (low, high) in found.items()
    }


def threshold(
    score: NDArray[np.floating], *, quantile: float = 0.99, factor: float = 1.5, noise: float = 0.0
) -> float | None:
    """The alarm threshold: `factor` times the `quantile` of the units' largest scores; None when noise hides it.

    With noise the quantile is where the counts above fall to what is asked or to what noise can hide; where noise hides
    even that, the highest scores that stand out of it.
    """
    row = np.asarray(score, np.float64)
    above = np.cumsum(row[::-1])[::-1]
    floor = _floor(noise, 1)
    hidden = floor * np.sqrt(np.arange(BINS, 0, -1))
    if not above[0] > max(hidden[0], 0.0):
        highest = _reach(row, floor)
        return factor * highest if highest else None
    allowed = np.maximum((1.0 - quantile) * above[0], hidden)
    index = int(np.argmax(above <= allowed)) if (above <= allowed).any() else BINS
    edge = EDGES[min(max(index - 1, 0), len(EDGES) - 1)]
    if noise > 0 or index == 0 or not row[index - 1] > 0:
        return float(factor * edge)
    # The quantile lies inside bin index - 1, whose upper edge this is.
    inside = (above[index - 1] - allowed[index - 1]) / row[index - 1]
    return float(factor * edge * 2 ** ((min(inside, 1.0) - 1.0) / _PER_OCTAVE))


def synthetic_inputs(
    minimum: NDArray[np.floating], maximum: NDArray[np.floating], time: int, *, count: int = 256, seed: int = 0
) -> NDArray[np.float32]:
    """Windows drawn inside public bounds, never from anybody's data: levels, slow drifts and noise of several sizes.

    minimum, maximum: [feature] schema ranges after normalisation. Returns [count, time, feature], the same for a seed.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    low, high = np.asarray(minimum, np.float64), np.asarray(maximum, np.float64)
    shape = (count, 1, len(low))
    # Normalised data has unit scale; schema bounds may lie far outside what is ever seen.
    level = rng.normal(size=shape)
    drift = rng.normal(size=shape) * np.linspace(-0.5, 0.5, time)[None, :, None]
    wobble = rng.normal(size=(count, time, len(low))) * rng.uniform(0.05, 1.0, size=(count, 1, 1))
    return np.clip(level + drift + wobble, low, high).astype(np.float32)


def _one_hot(values: Floats) -> Floats:
    """Counts per bin. values: [rows, values]; returns [rows, B]."""
    bins = np.searchsorted(EDGES, values, side="left")
    return np.array([np.bincount(row, minlength=BINS) for row in bins], np.float64).reshape(len(values), BINS)


def _reach(row: Floats, floor: float) -> float | None:
    """Upper edge of the highest bins that stand out of the noise; 0 for the bin of zero; None when none do."""
    if floor == 0:
        seen = np.flatnonzero(row > 0)
        return _upper(int(seen[-1])) if len(seen) else None
    found = []
    # Maxima crowd within an octave: a few neighbouring bins together stand out where one alone does not.
    for width, margin in ((1, _NOISY_MARGIN), (2, _NOISY_MARGIN), (_PER_OCTAVE, 1.0)):
        together = np.convolve(row, np.ones(width))[:BINS]
        seen = np.flatnonzero(together > floor * math.sqrt(width))
        if len(seen):
            found.append(_upper(int(seen[-1])) * margin)
    return max(found, default=None)


def _floor(noise: float, rows: int) -> float:
    """What noise alone exceeds in any of the bins of `rows` rows with probability `_MISTAKE` at most."""
    return noise * math.sqrt(2 * math.log(3 * rows * BINS / _MISTAKE))


def _middle(row: Floats) -> float:
    """Upper edge of the bin that holds the median unit."""
    total = np.cumsum(np.maximum(row, 0.0))
    return _upper(int(np.searchsorted(total, total[-1] / 2)))


def _upper(index: int) -> float:
    return 0.0 if index == 0 else float(EDGES[min(index, len(EDGES) - 1)])
