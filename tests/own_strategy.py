"""A researcher's own strategy, as docs/research.md shows it: momentum at the server that forgets where updates turn."""

from __future__ import annotations

from dataclasses import dataclass

from fedsite.server.strategies.step import Step, moved, option, remembered
from fedsite.server.strategies.strategy import Aggregate, ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarting(Step):
    """m ← β m + Δ, but m ← Δ in each parameter whose update now points the other way; then w ← w + η m."""

    beta: float = 0.5  # set it with strategy.options.beta=…

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        option("beta", self.beta, 0 <= self.beta < 1, "from 0, below 1")

    def apply(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """Keep m for the next round as well: it is in the checkpoints, and a resumed run has it."""
        memory, change = {}, {}
        for name, delta in aggregate.delta.items():
            m = remembered(state, "m", name)
            memory[f"m/{name}"] = delta + self.beta * m * (m * delta > 0)
            change[name] = self.server_learning_rate * memory[f"m/{name}"]
        return ServerState(params=moved(state.params, change), memory=memory)
