"""What a strategy is: `init(params) -> state`, `aggregator(state)` for one round, `apply(state, aggregate) -> state`.

The round loop hands updates to the aggregator one at a time, and forgets them. A strategy whose aggregate is a weighted
sum (FedAvg, FedAdam, SCAFFOLD's control variates) needs the memory of one model however many sites answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One site's round, or under secure aggregation one group's: the weighted mean of its sites.

    `delta` (new − old) of each trained parameter, and its weight (number of examples, or 1 for each site).
    """

    site: str  # site id, or a group's name
    delta: Arrays
    weight: float
    sites: int = 1  # that it is the mean of


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """What a round's updates amount to: one value per trained parameter, float64."""

    delta: Mapping[str, NDArray[np.float64]]
    weight: float  # sum of the weights
    count: int  # updates
    sites: int  # that they are of
    round: int = 0  # from 1: whose aggregate it is, told by whoever runs the rounds before `Strategy.apply`


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """The global model, and what the strategy remembers between rounds (momentum, control variates)."""

    params: Arrays
    memory: Arrays = field(default_factory=dict)


class Aggregator(Protocol):
    """Collects one round."""

    def add(self, update: Update) -> None:
        """Take one update; it is not kept by reference."""

    def result(self) -> Aggregate:
        """The aggregate of what was added.

        Raises:
            ValueError: nothing was added.
            PolicyError: too few updates for this strategy; the round is abandoned with this reason.
        """


class Strategy(Protocol):
    """One way of federated optimisation. Pure: all it knows is in the state."""

    @property
    def single(self) -> bool:
        """Whether it has to see the updates of single sites, and so cannot go with secure aggregation."""

    @property
    def least(self) -> int:
        """The fewest updates of a round that it can aggregate."""

    def init(self, params: Arrays) -> ServerState:
        """The state before round 1."""

    def control(self, state: ServerState) -> Arrays | None:
        """What every site is sent beside the model of `state`, to correct its steps: SCAFFOLD's c.

        Named and shaped like the parameters, in units of a gradient; of the ones that are not trained some may be
        there too. None, always, for a strategy that has none. With it every site weighs 1.
        """

    def aggregator(self, state: ServerState, trained: tuple[str, ...]) -> Aggregator:
        """An empty collector for updates of the `trained` parameters."""

    def apply(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """The state after the round `aggregate.round`."""
