"""Checks that the options of every architecture share: sizes are positive and bounded, kernels are odd."""

from __future__ import annotations

from fedsite.protocol.errors import ConfigError

LARGEST_WIDTH = 8192
LARGEST_DEPTH = 32


def widths(name: str, values: tuple[int, ...], *, shortest: int = 1) -> None:
    """A list of layer widths.

    Raises:
        ConfigError: too few, too many, or a width out of range.
    """
    if not shortest <= len(values) <= LARGEST_DEPTH:
        raise ConfigError(f"{name} has {len(values)} entries", allowed=f"{shortest} to {LARGEST_DEPTH} layer widths")
    for value in values:
        between(name, value, 1, LARGEST_WIDTH)


def between(name: str, value: float, low: float, high: float) -> None:
    """A number in a range.

    Raises:
        ConfigError: out of range.
    """
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}", allowed=f"{low} to {high}")


def odd(name: str, value: int, high: int = 63) -> None:
    """A kernel length that has a middle.

    Raises:
        ConfigError: even or out of range.
    """
    between(name, value, 1, high)
    if value % 2 == 0:
        raise ConfigError(f"{name} is {value}", allowed="an odd number", next_step=f"use {name}={value + 1}")
