"""The step that strategies without memory take: the model moves along the aggregate, times a server learning rate."""

from __future__ import annotations

import numpy as np

from fedsite.protocol.errors import ConfigError
from fedsite.server.strategies.strategy import Aggregate, ServerState


def step(state: ServerState, aggregate: Aggregate, rate: float) -> ServerState:
    """Add the aggregate; parameters that are not trained stay bit-equal."""
    params = dict(state.params)
    for name, delta in aggregate.delta.items():
        old = params[name]
        with np.errstate(over="ignore"):  # a model that diverged is told from a good one by whoever keeps it
            params[name] = (old.astype(np.float64) + rate * delta).astype(old.dtype)
    return ServerState(params=params, memory=state.memory)


def check_rate(rate: float) -> None:
    """Refuse a server learning rate that is none.

    Raises:
        ConfigError: not above 0, or above 10.
    """
    if not 0 < rate <= 10:
        raise ConfigError(f"strategy.options.server_learning_rate is {rate}", allowed="above 0, at most 10")


def whole(name: str, value: float, least: int) -> int:
    """An option that counts something; a plan writes every option as a number.

    Raises:
        ConfigError: not a whole number, or below `least`.
    """
    if value != int(value) or value < least:
        raise ConfigError(f"strategy.options.{name} is {value:g}", allowed=f"a whole number, at least {least}")
    return int(value)
