"""Runs that differ in their seed alone, taken together: means, and 95 % confidence intervals over seeds.

The interval is Student's t with one degree of freedom less than there are seeds: mean ± t · s / √n. It says how well
the mean over seeds is known, under seeds that scatter about normally; of one seed there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedsite.simulations.runs.results import Simulation
from fedsite.simulations.sweeps.manifest import Cell

# 97.5 % quantiles of Student's t by degrees of freedom, from 1; beyond them the normal's is within 2 %.
QUANTILES: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
NORMAL: Final = 1.960


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over seeds; `half` is half the width of its interval, None for one seed."""

    mean: float
    half: float | None
    seeds: int

    @property
    def low(self) -> float:
        """The interval's lower end."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """The interval's upper end."""
        return self.mean + (self.half or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Runs with the same settings but for the seed."""

    label: str  # what sets it apart from the other groups; empty where there are none
    overrides: tuple[str, ...]  # without the seed
    runs: tuple[Simulation, ...]

    def metric(self) -> Estimate | None:
        """Of the final models."""
        return estimate(run.metric.global_ for run in self.runs)

    def curve(self) -> list[tuple[int, Estimate]]:
        """The metric after each round that every run has judged, with that of the start at round 0."""
        found: dict[int, list[float]] = {}
        for run in self.runs:
            points = [(0, run.metric.initial), *((done.number, done.metric) for done in run.curve)]
            for number, value in points:
                if value is not None:
                    found.setdefault(number, []).append(value)
        whole = {number: values for number, values in sorted(found.items()) if len(values) == len(self.runs)}
        return [(number, known) for number, values in whole.items() if (known := estimate(values))]


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Mean and interval of what is known; None where nothing is."""
    known = np.array([value for value in values if value is not None], np.float64)
    if not len(known):
        return None
    if len(known) == 1:
        return Estimate(mean=float(known[0]), half=None, seeds=1)
    half = quantile(len(known) - 1) * float(known.std(ddof=1)) / math.sqrt(len(known))
    return Estimate(mean=float(known.mean()), half=half, seeds=len(known))


def quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t."""
    return QUANTILES[degrees - 1] if degrees <= len(QUANTILES) else NORMAL


def groups(runs: Sequence[tuple[Cell, Simulation]], swept: Sequence[str]) -> list[Group]:
    """Runs by everything but the seed, in order of appearance.

    Args:
        runs: finished ones.
        swept: keys that take more than one value.
    """
    found: dict[tuple[str, ...], list[Simulation]] = {}
    for cell, result in runs:
        kept = tuple(item for item in cell.overrides if item.partition("=")[0] != "seed")
        found.setdefault(kept, []).append(result)
    return [
        Group(
            label=" ".join(_short(item) for item in kept if item.partition("=")[0] in swept),
            overrides=kept,
            runs=tuple(members),
        )
        for kept, members in found.items()
    ]


def _short(item: str) -> str:
    """An override as a legend has room for it: its last word and its value."""
    key, _, value = item.partition("=")
    return (
        value if key in ("strategy", "task", "privacy", "protection", "simulation") else f"{key.split('.')[-1]}={value}"
    )
