"""Strategies by the name a plan gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import LocalPlan
from fedsite.protocol.shape import nearest
from fedsite.server.strategies.fedavg import FedAvg
from fedsite.server.strategies.krum import Krum
from fedsite.server.strategies.median import Median
from fedsite.server.strategies.strategy import Strategy
from fedsite.server.strategies.trimmed_mean import TrimmedMean

_STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "fedavg": FedAvg,
    "krum": Krum,
    "median": Median,
    "trimmed_mean": TrimmedMean,
}


def names() -> list[str]:
    """Known strategies."""
    return sorted(_STRATEGIES)


def build(name: str, options: Mapping[str, float], *, local: LocalPlan, sites: int = 0) -> Strategy:
    """The strategy `name` with its options.

    Args:
        name: one of `names()`.
        options: fields of its class; other ones take their defaults.
        local: what a site does in a round. It becomes the field `local` of a class that has one.
        sites: of the federation, taking part or not; 0 where that is not known. It becomes the field `sites`.

    Raises:
        ConfigError: unknown name or option (the nearest one is pointed out), or a value that cannot be.
    """
    if name not in _STRATEGIES:
        raise ConfigError(f"strategy.name is {name!r}", allowed=nearest(name, names()))
    kind = _STRATEGIES[name]
    fields = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    around = {"local": local, "sites": sites}
    known = [field for field in fields if field not in around]
    for option in options:
        if option not in known:
            raise ConfigError(f"unknown strategy.options.{option}", allowed=nearest(option, known))
    return kind(**options, **{name: value for name, value in around.items() if name in fields})
