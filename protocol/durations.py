"""Durations as people write them: "90s", "30m", "1h", "2d"."""

from __future__ import annotations

import re

from fedsite.protocol.errors import ConfigError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str, name: str = "duration", *, example: str = "") -> float:
    """The seconds of a whole number with s, m, h or d.

    Args:
        name: of the option or setting, for the message.
        example: a command or setting that would be right.

    Raises:
        ConfigError: another spelling.
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text.strip())
    if match is None:
        raise ConfigError(f"{name} {text!r:.40}", allowed="a number with s, m, h or d, such as 2d", next_step=example)
    return float(int(match[1]) * UNITS[match[2]])
