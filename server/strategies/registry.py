"""Strategies by the name a plan gives them: the shipped ones and those that other packages bring.

A strategy is a dataclass as `strategy.Strategy` describes; its fields are what `strategy.options` may set, each a
number. Two fields are no options: one named `local` is given the plan's LocalPlan, one named `sites` the number of
sites. A package brings one by an entry point in group `fedsite.strategies`: `my_strategy = "my_package:MyStrategy"`.
Only the server needs the package: a site is told what to do by the plan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import LocalPlan
from fedsite.protocol.shape import nearest
from fedsite.server.strategies.strategy import Strategy

GROUP: Final = "fedsite.strategies"

_PLACE: Final = "fedsite.server.strategies"
_BUILT_IN: Final = {
    "fedadagrad": "fedopt:FedAdagrad",
    "fedadam": "fedopt:FedAdam",
    "fedavg": "fedavg:FedAvg",
    "fedavgm": "fedavgm:FedAvgM",
    "fedprox": "fedprox:FedProx",
    "fedyogi": "fedopt:FedYogi",
    "krum": "krum:Krum",
    "median": "median:Median",
    "scaffold": "scaffold:Scaffold",
    "trimmed_mean": "trimmed_mean:TrimmedMean",
}


def names() -> list[str]:
    """Every strategy that `build` knows here, sorted."""
    return sorted(_entries())


def installed() -> list[str]:
    """Only those that came with other packages, sorted."""
    return sorted(set(_entries()) - set(_BUILT_IN))


def summing() -> list[str]:
    """Shipped strategies that take sums over sites, sorted: those that can go with secure aggregation."""
    return sorted(name for name in _BUILT_IN if not getattr(_load(name), "single", False))


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
    kind = _load(name)
    fields = [field.name for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]
    around = {"local": local, "sites": sites}
    known = [field for field in fields if field not in around]
    for option in options:
        if option not in known:
            raise ConfigError(f"unknown strategy.options.{option}", allowed=nearest(option, known) or "none")
    return kind(**options, **{name: value for name, value in around.items() if name in fields})


def _entries() -> dict[str, EntryPoint]:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    # A package cannot replace a shipped name: a plan that says "fedavg" means ours.
    return found | {name: EntryPoint(name, f"{_PLACE}.{value}", GROUP) for name, value in _BUILT_IN.items()}


def _load(name: str) -> Callable[..., Strategy]:
    entries = _entries()
    if name not in entries:
        raise ConfigError(
            f"strategy.name is {name!r}",
            allowed=nearest(name, sorted(entries)),
            next_step="take one of these, or install the package that brings it where the server runs",
        )
    try:
        kind: Any = entries[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"strategy {name!r} cannot be loaded from {entries[name].value} ({error})",
            allowed="an importable class",
            next_step="install or repair the package that brings it",
        ) from error
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise ConfigError(
            f"strategy {name!r} ({entries[name].value}) is no dataclass",
            allowed="a class as fedsite.server.strategies.strategy.Strategy, its options as fields",
        )
    return cast(Callable[..., Strategy], kind)
