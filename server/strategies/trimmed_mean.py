"""Coordinate-wise trimmed mean: of each parameter the largest and the smallest values are left out.

With `trim` = β, ⌈β·n⌉ of n updates are cut at either end, though never so many that none is left; so many bad updates
move no parameter out of the others' range. Less noisy than the median when most updates are good. Under secure
aggregation an update is the mean of one group. Every update counts the same. Memory: all updates of a round
(collected.py).

Source: Yin et al., "Byzantine-Robust Distributed Learning", ICML 2018, definition 2 and algorithm 1, option II.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import ConfigError
from fedsite.server.strategies.collected import Collected, Rows, blocks
from fedsite.server.strategies.step import Step
from fedsite.server.strategies.strategy import Aggregator, ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimmedMean(Step):
    """The trimmed mean of the updates, times a server learning rate."""

    trim: float = 0.2  # β, share of the updates that is cut at either end

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        if not 0 < self.trim < 0.5:
            raise ConfigError(f"strategy.options.trim is {self.trim:g}", allowed="above 0, below 0.5")

    @property
    def least(self) -> int:
        """Updates of which some are left when one is cut at either end."""
        return 3

    def aggregator(self, state: ServerState, trained: tuple[str, ...]) -> Aggregator:
        """Keeps the round's updates."""
        reason = "one is cut at either end"
        return Collected(state.params, trained, partial(trimmed_mean, trim=self.trim), least=self.least, reason=reason)


def cut(count: int, trim: float) -> int:
    """How many of `count` updates are left out at either end: ⌈trim · count⌉, but some are kept."""
    return min(math.ceil(trim * count - 1e-9), (count - 1) // 2)  # 0.1 · 30 is a little more than 3


def trimmed_mean(rows: Rows, trim: float) -> NDArray[np.float64]:
    """Of each parameter over all updates, [parameter]."""
    count = len(rows)
    out = cut(count, trim)
    found = np.empty(len(rows[0]))
    for part, values in blocks(rows):
        values.sort(axis=0)
        found[part] = values[out : count - out].mean(axis=0)
    return found
