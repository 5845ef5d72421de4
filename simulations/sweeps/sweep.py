"""Sweeps: the command line of several runs, in Hydra's own grammar (`strategy=fedavg,fedprox seed=range(0,5)`)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from fedsite.protocol.errors import ConfigError
from fedsite.server import settings as launch
from fedsite.simulations.runs.settings import SIMULATE

MOST: Final = 10_000  # cells


def cells(overrides: Sequence[str]) -> list[tuple[str, ...]]:
    """The overrides of every run of a sweep, the last key varying fastest.

    What holds one value stays as it was typed.

    Raises:
        ConfigError: an override Hydra cannot read, an interval, too many cells.
    """
    each = [_values(item) for item in overrides]
    total = 1
    for values in each:
        total *= len(values)
    if total > MOST:
        raise ConfigError(f"a sweep of {total} runs", allowed=f"at most {MOST}", next_step="fewer values")
    return list(dict.fromkeys(itertools.product(*each)))


def swept(overrides: Sequence[str]) -> list[str]:
    """The keys that take more than one value."""
    return [item.partition("=")[0] for item in overrides if len(_values(item)) > 1]


def _values(item: str) -> list[str]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob, QuotedString
    from hydra.errors import HydraException

    key, separator, _ = item.partition("=")
    if not separator or not key:
        raise ConfigError(f"argument {item!r}", allowed="key=value", next_step=SIMULATE.help)
    try:
        found = OverridesParser.create().parse_override(item)
    except HydraException:
        if key in SIMULATE.literal:
            return [item]  # a path as it stands
        raise ConfigError(
            f"override {item} cannot be read",
            allowed="key=value, key=a,b,c, key=range(0,5), key=glob(*)",
            next_step=SIMULATE.help,
        ) from None
    if not found.is_sweep_override():
        return [item]
    if isinstance(value := found.value(), Glob):
        if key not in SIMULATE.groups:
            raise ConfigError(
                f"{item}: {key} has no folder of choices", allowed=", ".join(SIMULATE.groups), next_step=SIMULATE.help
            )
        return _some(item, [f"{key}={name}" for name in value.filter(launch.choices(key))])
    if found.is_interval_sweep():
        raise ConfigError(
            f"{item} has no single values",
            allowed=f"{key}=a,b,c or {key}=range(start,stop,step)",
            next_step=SIMULATE.help,
        )

    try:
        texts = list(itertools.islice(found.sweep_string_iterator(), MOST + 1))
        if key in SIMULATE.literal:
            # A path is taken as it stands: its quotes were for this grammar only.
            elements = found.sweep_iterator(transformer=lambda one: one)
            pairs = zip(elements, texts, strict=False)
            texts = [str(one.text) if isinstance(one, QuotedString) else text for one, text in pairs]
    except ValueError as error:
        raise ConfigError(
            f"{item}: {error}", allowed=f"{key}=range(start,stop,step)", next_step=SIMULATE.help
        ) from None
    return _some(item, [f"{key}={one}" for one in texts])


def _some(item: str, found: list[str]) -> list[str]:
    if not found:
        raise ConfigError(f"{item} is a sweep over nothing", allowed="at least one value", next_step=SIMULATE.help)
    return found
