"""Coordinate-wise median: fewer than half of the updates, however wrong, move no parameter out of the others' range.

Under secure aggregation an update is the mean of one group, so fewer than half of the *groups* may hold a bad site.
Every update counts the same: a weight is what its sender says it is. Memory: all updates of a round (collected.py).

Source: Yin et al., "Byzantine-Robust Distributed Learning", ICML 2018, definition 1 and algorithm 1, option I.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsite.server.strategies.collected import Collected, Rows, blocks
from fedsite.server.strategies.step import check_rate, step
from fedsite.server.strategies.strategy import Aggregate, Aggregator, Arrays, ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Median:
    """The median of the updates, times a server learning rate."""

    single: ClassVar[bool] = False
    server_learning_rate: float = 1.0

    def __post_init__(self) -> None:
        check_rate(self.server_learning_rate)

    @property
    def least(self) -> int:
        """Updates without which one of them could decide alone."""
        return 3

    def init(self, params: Arrays) -> ServerState:
        """The state before round 1: nothing is remembered."""
        return ServerState(params=dict(params))

    def aggregator(self, state: ServerState, trained: tuple[str, ...]) -> Aggregator:
        """Keeps the round's updates."""
        reason = "of two the median is the mean"
        return Collected(state.params, trained, median, least=self.least, reason=reason)

    def apply(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """Add the median update."""
        return step(state, aggregate, self.server_learning_rate)


def median(rows: Rows) -> NDArray[np.float64]:
    """Of each parameter over all updates, [parameter]; of an even number the mean of the two in the middle."""
    found = np.empty(len(rows[0]))
    for part, values in blocks(rows):
        found[part] = np.median(values, axis=0, overwrite_input=True)
    return found
