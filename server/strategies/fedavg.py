"""FedAvg: the next model is the mean of the sites' models, weighted by their examples.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
algorithm 1. Written with deltas, as Reddi et al. 2021 do: w ← w + η Σ n_k δ_k / Σ n_k; η = 1 is McMahan's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedsite.server.strategies.step import check_rate, step
from fedsite.server.strategies.strategy import Aggregate, Aggregator, Arrays, ServerState
from fedsite.server.strategies.streaming import WeightedMean


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg:
    """Weighted mean of the updates, times a server learning rate."""

    single: ClassVar[bool] = False
    server_learning_rate: float = 1.0

    def __post_init__(self) -> None:
        check_rate(self.server_learning_rate)

    @property
    def least(self) -> int:
        """Updates of which there is a mean."""
        return 1

    def init(self, params: Arrays) -> ServerState:
        """The state before round 1: FedAvg remembers nothing."""
        return ServerState(params=dict(params))

    def aggregator(self, state: ServerState, trained: tuple[str, ...]) -> Aggregator:
        """A streamed weighted mean."""
        return WeightedMean(state.params, trained)

    def apply(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """Add the mean update."""
        return step(state, aggregate, self.server_learning_rate)
