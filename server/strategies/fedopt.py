"""FedAdam, FedYogi, FedAdagrad: the server takes the mean update for a gradient and adapts each parameter's step.

m ← β1 m + (1 − β1) Δ, then v by one of three rules, then w ← w + η m / (√v + τ), with Δ the weighted mean of the
updates. v begins at τ², and neither is corrected for its beginning. Once v has settled a parameter moves by about η a
round, however small the updates are: η is on the scale of the weights, not of the updates.

Source: Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (arXiv:2003.00295), algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsite.server.strategies.step import Step, moved, option, remembered
from fedsite.server.strategies.strategy import Aggregate, ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAdagrad(Step):
    """v ← v + Δ²: steps only become smaller. What the three have in common is here too."""

    server_learning_rate: float = 0.03  # η
    beta1: float = 0.9  # how much of the direction is kept from round to round
    tau: float = 1e-3  # τ, how far steps adapt: much larger than Δ, and all parameters move as in FedAvg

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        option("beta1", self.beta1, 0 <= self.beta1 < 1, "from 0, below 1")
        option("tau", self.tau, 0 < self.tau <= 1000, "above 0, at most 1000")

    def second(self, v: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        """The next v, from Δ²."""
        return v + square

    def apply(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """Lines 10 to 14 of the algorithm: m, v, then the model."""
        change: dict[str, NDArray[np.float64]] = {}
        memory: dict[str, NDArray[np.float64]] = {}
        for name, delta in aggregate.delta.items():
            m = self.beta1 * remembered(state, "m", name) + (1 - self.beta1) * delta
            v = self.second(remembered(state, "v", name, self.tau**2), delta**2)
            change[name] = self.server_learning_rate * m / (np.sqrt(v) + self.tau)
            memory |= {f"m/{name}": m, f"v/{name}": v}
        return ServerState(params=moved(state.params, change), memory=memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAdam(FedAdagrad):
    """v ← β2 v + (1 − β2) Δ²: a moving average."""

    beta2: float = 0.99

    def __post_init__(self) -> None:
        FedAdagrad.__post_init__(self)
        option("beta2", self.beta2, 0 <= self.beta2 < 1, "from 0, below 1")

    def second(self, v: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        """The next v, from Δ²."""
        return self.beta2 * v + (1 - self.beta2) * square


@dataclass(frozen=True, slots=True, kw_only=True)
class FedYogi(FedAdam):
    """v ← v − (1 − β2) Δ² sign(v − Δ²): v forgets slowly, so that steps do not suddenly grow."""

    def second(self, v: NDArray[np.float64], square: NDArray[np.float64]) -> NDArray[np.float64]:
        """The next v, from Δ²."""
        return v - (1 - self.beta2) * square * np.sign(v - square)
