"""FedAvg: the next model is the mean of the sites' models, weighted by their examples.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
algorithm 1. Written with deltas, as Reddi et al. 2021 do: w ← w + η Σ n_k δ_k / Σ n_k; η = 1 is McMahan's.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedsite.server.strategies.step import Memoryless
from fedsite.server.strategies.strategy import Aggregator, ServerState
from fedsite.server.strategies.streaming import WeightedMean


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg(Memoryless):
    """Weighted mean of the updates, times a server learning rate."""

    @property
    def least(self) -> int:
        """Updates of which there is a mean."""
        return 1

    def aggregator(self, state: ServerState, trained: tuple[str, ...]) -> Aggregator:
        """A streamed weighted mean."""
        return WeightedMean(state.params, trained)
