"""The step of a round that strategies share: along the mean of the updates, times a server learning rate.

A strategy derives from `Step` and says what is different: how updates become one aggregate (`aggregator`, `least`), or
how the model moves along it and what is remembered for later rounds (`apply`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import ConfigError
from fedsite.server.strategies.strategy import Aggregate, Aggregator, Arrays, ServerState
from fedsite.server.strategies.streaming import WeightedMean


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """w ← w + η Δ, where Δ is the weighted mean of the updates; nothing is remembered."""

    single: ClassVar[bool] = False
    server_learning_rate: float = 1.0  # η

    def __post_init__(self) -> None:
        rate = self.server_learning_rate
        option("server_learning_rate", rate, 0 < rate <= 10, "above 0, at most 10")

    @property
    def least(self) -> int:
        """Updates of which there is a mean."""
        return 1

    def init(self, params: Arrays) -> ServerState:
        """The state before round 1: nothing is remembered."""
        return ServerState(params=dict(params))

    def control(self, state: ServerState) -> Arrays | None:
        """Sites take their steps as they are."""
        return None

    def aggregator(self, state: ServerState, trained: tuple[str, ...]) -> Aggregator:
        """A streamed weighted mean."""
        return WeightedMean(state.params, trained)

    def apply(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """Add the aggregate; parameters that are not trained stay bit-equal."""
        change = {name: self.server_learning_rate * delta for name, delta in aggregate.delta.items()}
        return ServerState(params=moved(state.params, change), memory=state.memory)


def moved(params: Arrays, change: dict[str, NDArray[np.float64]]) -> Arrays:
    """`params` with `change` added in float64; what has no change is the same array."""
    found = dict(params)
    for name, step in change.items():
        old = params[name]
        with np.errstate(over="ignore"):  # a model that diverged is told from a good one by whoever keeps it
            found[name] = (old.astype(np.float64) + step).astype(old.dtype)
    return found


def remembered(state: ServerState, what: str, name: str, start: float = 0.0) -> NDArray[np.float64]:
    """What is kept as `what/name` in the state's memory; before the first round `start`, shaped like the parameter."""
    found = state.memory.get(f"{what}/{name}")
    return np.full(state.params[name].shape, start) if found is None else np.asarray(found, np.float64)


def option(name: str, value: float, fits: bool, allowed: str) -> None:
    """Check an option of a strategy.

    Raises:
        ConfigError: it does not fit (so NaN does not); `allowed` says what does.
    """
    if not fits:
        raise ConfigError(f"strategy.options.{name} is {value:g}", allowed=allowed)


def whole(name: str, value: float, least: int) -> int:
    """An option that counts something; a plan writes every option as a number.

    Raises:
        ConfigError: not a whole number, or below `least`.
    """
    if value != int(value) or value < least:
        raise ConfigError(f"strategy.options.{name} is {value:g}", allowed=f"a whole number, at least {least}")
    return int(value)
