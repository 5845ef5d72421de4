"""Coordinate-wise median: fewer than half of the updates, however wrong, move no parameter out of the others' range.

Under secure aggregation an update is the mean of one group, so fewer than half of the *groups* may hold a bad site.
Every update counts the same: a weight is what its sender says it is. Memory: all updates of a round (collected.py).

Source: Yin et al., "Byzantine-Robust Distributed Learning", ICML 2018, definition 1 and algorithm 1, option I.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsite.server.strategies.collected import Collected, Rows, blocks
from fedsite.server.strategies.step import Step
from fedsite.server.strategies.strategy import Aggregator, ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Median(Step):
    """The median of the updates, times a server learning rate."""

    @property
    def least(self) -> int:
        """Updates without which one of them could decide alone."""
        return 3

    def aggregator(self, state: ServerState, trained: tuple[str, ...]) -> Aggregator:
        """Keeps the round's updates."""
        reason = "of two the median is the mean"
        return Collected(state.params, trained, median, least=self.least, reason=reason)


def median(rows: Rows) -> NDArray[np.float64]:
    """Of each parameter over all updates, [parameter]; of an even number the mean of the two in the middle."""
    found = np.empty(len(rows[0]))
    for part, values in blocks(rows):
        found[part] = np.median(values, axis=0, overwrite_input=True)
    return found
