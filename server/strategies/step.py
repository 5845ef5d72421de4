"""Strategies without memory: the model moves along the round's aggregate, times a server learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedsite.protocol.errors import ConfigError
from fedsite.server.strategies.strategy import Aggregate, Arrays, ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Memoryless:
    """What they share; each says itself how updates become an aggregate."""

    single: ClassVar[bool] = False
    server_learning_rate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.server_learning_rate <= 10:
            raise ConfigError(
                f"strategy.options.server_learning_rate is {self.server_learning_rate}", allowed="above 0, at most 10"
            )

    def init(self, params: Arrays) -> ServerState:
        """The state before round 1: nothing is remembered."""
        return ServerState(params=dict(params))

    def control(self, state: ServerState) -> None:
        """Sites take their steps as they are."""

    def apply(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """Add the aggregate; parameters that are not trained stay bit-equal."""
        params = dict(state.params)
        for name, delta in aggregate.delta.items():
            old = params[name]
            with np.errstate(over="ignore"):  # a model that diverged is told from a good one by whoever keeps it
                params[name] = (old.astype(np.float64) + self.server_learning_rate * delta).astype(old.dtype)
        return ServerState(params=params, memory=state.memory)


def whole(name: str, value: float, least: int) -> int:
    """An option that counts something; a plan writes every option as a number.

    Raises:
        ConfigError: not a whole number, or below `least`.
    """
    if value != int(value) or value < least:
        raise ConfigError(f"strategy.options.{name} is {value:g}", allowed=f"a whole number, at least {least}")
    return int(value)
