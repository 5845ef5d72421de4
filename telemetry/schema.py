"""What a channel holds: unit, public range (from physics, never from data), and what to do where it has no value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fedsite.telemetry.errors import TaskError

# drop: no window holds the row; hold: the last value for a while; interpolate: a line between neighbours (it looks
# ahead, so it is for records, not for live scoring); middle: the middle of the public range; minimum: its lower end.
MissingPolicy = Literal["drop", "hold", "interpolate", "middle", "minimum"]

EPOCH = 1e8  # a time below that is a count of its own, not seconds since 1970


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One measured quantity, or `count` numbered ones with the same meaning (`p` with count 64 is p0 … p63)."""

    name: str
    minimum: float  # public bounds in `unit`; a reading outside is a schema violation
    maximum: float
    unit: str = "1"
    title: str = ""
    count: int | None = None
    missing: MissingPolicy | None = None  # None: the task's window.missing.policy
    outside: Literal["refuse", "clip", "missing"] = "refuse"  # what a reading outside the bounds becomes

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith("@"):
            raise TaskError(f"name is {self.name!r}", allowed="text that does not start with @")
        if not (math.isfinite(self.minimum) and math.isfinite(self.maximum) and self.minimum < self.maximum):
            raise TaskError(
                f"minimum is {self.minimum} and maximum {self.maximum} (channel {self.name})",
                allowed="finite numbers, minimum below maximum",
            )
        if self.count is not None and not 1 <= self.count <= 100_000:
            raise TaskError(f"count is {self.count} (channel {self.name})", allowed="1 to 100000")

    def expand(self) -> tuple[Channel, ...]:
        """The single channels this entry stands for."""
        if self.count is None:
            return (self,)
        return tuple(
            Channel(
                name=f"{self.name}{index}",
                minimum=self.minimum,
                maximum=self.maximum,
                unit=self.unit,
                title=self.title,
                missing=self.missing,
                outside=self.outside,
            )
            for index in range(self.count)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The sampling step: `seconds` where time is a clock, else one count of `unit` (cycle, row)."""

    seconds: float | None = None
    unit: str = "row"

    def __post_init__(self) -> None:
        if self.seconds is not None and not self.seconds > 0:
            raise TaskError(f"seconds is {self.seconds}", allowed="above 0, or null for a count")

    @property
    def step(self) -> float:
        """The distance of two neighbouring readings, in the units of the time column."""
        return 1.0 if self.seconds is None else self.seconds
