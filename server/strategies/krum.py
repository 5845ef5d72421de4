"""Krum and Multi-Krum: the updates that lie closest to their neighbours, up to `byzantine` bad ones tolerated.

The score of an update is the sum of its squared distances to the n − f − 2 updates nearest to it; the `select` updates
with the lowest scores are averaged, each counting the same (select = 1 is Krum). It needs n ≥ 2f + 3 updates, and
select ≤ n − f − 2. It compares single sites' updates, so it cannot go with secure aggregation. Memory: all updates of
a round (collected.py); time: n² / 2 distances.

Source: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017,
section 4; the bound on select is that of El Mhamdi et al., ICML 2018, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsite.server.strategies.collected import Collected, Rows, blocks
from fedsite.server.strategies.step import Step, whole
from fedsite.server.strategies.strategy import Aggregator, ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Krum(Step):
    """The mean of the updates with the lowest scores, times a server learning rate."""

    single: ClassVar[bool] = True
    byzantine: float = 1  # f, a whole number; so many updates may be bad
    select: float = 1  # m, a whole number

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        whole("byzantine", self.byzantine, 0)
        whole("select", self.select, 1)

    @property
    def least(self) -> int:
        """n ≥ 2f + 3, and select ≤ n − f − 2."""
        return max(2 * int(self.byzantine) + 3, int(self.byzantine) + int(self.select) + 2)

    def aggregator(self, state: ServerState, trained: tuple[str, ...]) -> Aggregator:
        """Keeps the round's updates."""
        f, m = int(self.byzantine), int(self.select)
        rule = partial(multi_krum, byzantine=f, select=m)
        reason = f"krum with byzantine={f} and select={m} needs 2·{f} + 3 and {f} + {m} + 2"
        return Collected(state.params, trained, rule, least=self.least, reason=reason)


def multi_krum(rows: Rows, byzantine: int, select: int) -> NDArray[np.float64]:
    """The mean of the `select` rows with the lowest scores, [parameter]; of equal scores the first come first."""
    chosen = np.argsort(scores(rows, byzantine), kind="stable")[:select]
    found = np.empty(len(rows[0]))
    for part, values in blocks([rows[number] for number in chosen]):
        found[part] = values.mean(axis=0)
    return found


def scores(rows: Rows, byzantine: int) -> NDArray[np.float64]:
    """Krum's score of each row, [update]."""
    distances = np.zeros((len(rows), len(rows)))
    for _, values in blocks(rows):
        for number in range(len(rows) - 1):
            # Differences, not scalar products: those lose what is small beside one update that is huge.
            apart = values[number + 1 :] - values[number]
            distances[number, number + 1 :] += np.einsum("up,up->u", apart, apart)
    distances += distances.T
    np.fill_diagonal(distances, np.inf)
    near = len(rows) - byzantine - 2
    return np.sort(distances, axis=1)[:, :near].sum(axis=1)
