"""FedAvg: the next model is the mean of the sites' models, weighted by their examples.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
algorithm 1. Written with deltas, as Reddi et al. 2021 do: w ← w + η Σ n_k δ_k / Σ n_k; η = 1 is McMahan's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsite.protocol.errors import ConfigError
from fedsite.server.strategies.strategy import Aggregate, Aggregator, Arrays, ServerState
from fedsite.server.strategies.streaming import WeightedMean


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg:
    """Weighted mean of the updates, times a server learning rate."""

    server_learning_rate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.server_learning_rate <= 10:
            raise ConfigError(
                f"strategy.options.server_learning_rate is {self.server_learning_rate}", allowed="above 0, at most 10"
            )

    def init(self, params: Arrays) -> ServerState:
        """The state before round 1: FedAvg remembers nothing."""
        return ServerState(params=dict(params))

    def aggregator(self, state: ServerState, trained: tuple[str, ...]) -> Aggregator:
        """A streamed weighted mean."""
        return WeightedMean(state.params, trained)

    def apply(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """Add the mean update; parameters that are not trained stay bit-equal."""
        params = dict(state.params)
        for name, delta in aggregate.delta.items():
            old = params[name]
            with np.errstate(over="ignore"):  # a model that diverged is told from a good one by whoever keeps it
                params[name] = (old.astype(np.float64) + self.server_learning_rate * delta).astype(old.dtype)
        return ServerState(params=params, memory=state.memory)
