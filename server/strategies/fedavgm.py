"""FedAvgM: FedAvg with momentum at the server, which carries over what sites with unlike data agree on.

m ← β m + Δ and w ← w + η m, with Δ the weighted mean of the updates. Under a Δ that stays the same m grows to
Δ / (1 − β): β = 0.5 is two steps of FedAvg in one. The paper's β = 0.9 is ten, over hundreds of rounds; in a run of
twenty it overshoots, with a smaller η too.

Source: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
2019 (arXiv:1909.06335), section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedsite.server.strategies.step import Step, moved, option, remembered
from fedsite.server.strategies.strategy import Aggregate, ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvgM(Step):
    """Momentum over the rounds; 0 is FedAvg."""

    momentum: float = 0.5  # β

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        option("momentum", self.momentum, 0 <= self.momentum < 1, "from 0, below 1")

    def apply(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """Add the round to the momentum, and the momentum to the model."""
        m = {name: self.momentum * remembered(state, "m", name) + delta for name, delta in aggregate.delta.items()}
        change = {name: self.server_learning_rate * value for name, value in m.items()}
        return ServerState(params=moved(state.params, change), memory={f"m/{name}": value for name, value in m.items()})
