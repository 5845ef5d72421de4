"""All updates of one round side by side, for rules that compare them: a median has no running sum.

Memory: one float32 copy of every update, 4 bytes × parameters × updates, and blocks of `BLOCK` parameters in float64.
100 updates of 1 million parameters are 400 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import PolicyError, RefusalCode
from fedsite.server.strategies.strategy import Aggregate, Arrays, Update
from fedsite.server.strategies.streaming import check

BLOCK: Final = 1 << 14  # parameters looked at in a time: with 100 updates that is 13 MB of float64
Rows = Sequence[NDArray[np.float32]]  # one flat vector an update, [parameter]
Rule = Callable[[Rows], NDArray[np.float64]]  # one vector of all of them


class Collected:
    """Keeps the updates of one round, and applies a rule to all of them; every update counts the same.

    Shapes: those of the trained parameters in `params`.
    """

    def __init__(self, params: Arrays, trained: tuple[str, ...], rule: Rule, *, least: int, reason: str) -> None:
        """Begin a round.

        Args:
            params: the model.
            trained: names that updates have.
            rule: from all rows to one.
            least: updates that the rule needs.
            reason: for so many, in words.
        """
        self._shapes = {name: params[name].shape for name in trained}
        self._rule = rule
        self._least = least
        self._reason = reason
        self._rows: list[NDArray[np.float32]] = []
        self._weight = 0.0
        self._sites = 0

    def add(self, update: Update) -> None:
        """Keep a copy of one update.

        Raises:
            ValueError: names or shapes are not those of the trained parameters, or a value is not finite in float32.
        """
        check(update.delta, self._shapes)
        with np.errstate(over="ignore"):
            parts = [np.asarray(update.delta[name], np.float32).reshape(-1) for name in self._shapes]
        row = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        if not np.isfinite(row).all():
            raise ValueError(f"the update of {update.site} is not finite")
        self._rows.append(row)
        self._weight += update.weight
        self._sites += update.sites

    def result(self) -> Aggregate:
        """What the rule makes of the round; the updates are not touched.

        Raises:
            PolicyError: fewer updates than the rule needs: the round cannot be aggregated.
        """
        if len(self._rows) < self._least:
            raise PolicyError(
                f"{len(self._rows)} updates",
                allowed=f"at least {self._least}: {self._reason}",
                next_step="raise rounds.minimum, or protection.groups under secagg, or take strategy=fedavg",
                refusal=RefusalCode.COHORT,
            )
        flat, start = self._rule(self._rows), 0
        delta: dict[str, NDArray[np.float64]] = {}
        for name, shape in self._shapes.items():
            size = int(np.prod(shape))
            delta[name] = flat[start : start + size].reshape(shape)
            start += size
        return Aggregate(delta=delta, weight=self._weight, count=len(self._rows), sites=self._sites)


def blocks(rows: Rows) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """All rows, `BLOCK` parameters at a time: where, and [update, parameter] in float64, the caller's to change."""
    for start in range(0, len(rows[0]), BLOCK):
        part = slice(start, start + BLOCK)
        yield part, np.stack([row[part] for row in rows]).astype(np.float64)
