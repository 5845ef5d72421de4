"""When a site may work, in its own local time: windows such as `22:00-06:00` or `sat,sun 00:00-24:00`.

A window that ends before it begins goes over midnight and belongs to the day on which it begins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fedsite.protocol.errors import ConfigError

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES: Final = 24 * 60
_WINDOW = re.compile(r"(?:(?P<days>[a-z,-]+)\s+)?(?P<h1>\d{1,2}):(?P<m1>\d\d)\s*-\s*(?P<h2>\d{1,2}):(?P<m2>\d\d)")
_ALLOWED = 'such as "22:00-06:00", "mon-fri 18:00-07:30" or "sat,sun 00:00-24:00"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One stretch of local time, on some days of the week."""

    days: frozenset[int]  # 0 is Monday; the days on which it begins
    begin: int  # minutes after midnight
    minutes: int  # how long it lasts

    def holds(self, now: datetime) -> bool:
        """Whether `now` lies in it."""
        passed = now.hour * 60 + now.minute
        today = now.weekday() in self.days and self.begin <= passed < self.begin + self.minutes
        yesterday = (now.weekday() - 1) % 7 in self.days and passed + _DAY_MINUTES < self.begin + self.minutes
        return today or yesterday


def read(text: str) -> Window:
    """One window.

    Raises:
        ConfigError: it is not written as one.
    """
    found = _WINDOW.fullmatch(text.strip().lower())
    if found is None:
        raise ConfigError(f"hours {text!r}", allowed=_ALLOWED)
    begin, end = (_minutes(found[hour], found[minute], text) for hour, minute in (("h1", "m1"), ("h2", "m2")))
    if begin in (end, _DAY_MINUTES):
        raise ConfigError(f"hours {text!r} hold no time", allowed=_ALLOWED)
    days = _days(found["days"], text) if found["days"] else frozenset(range(7))
    return Window(days=days, begin=begin, minutes=(end - begin) % _DAY_MINUTES or _DAY_MINUTES)


def opening(windows: Sequence[str], now: datetime) -> datetime | None:
    """When work may begin: `now` in one of the windows or without any, else the beginning of the next one.

    Args:
        windows: as written.
        now: local time.
    """
    read_ones = [read(text) for text in windows]
    if not read_ones or any(window.holds(now) for window in read_ones):
        return now
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    begins = [
        midnight + timedelta(days=day, minutes=window.begin)
        for window in read_ones
        for day in range(8)
        if (now.weekday() + day) % 7 in window.days
    ]
    return min((begin for begin in begins if begin > now), default=None)


def _minutes(hour: str, minute: str, text: str) -> int:
    value = int(hour) * 60 + int(minute)
    if int(minute) > 59 or value > _DAY_MINUTES:
        raise ConfigError(f"hours {text!r}", allowed="times from 00:00 to 24:00")
    return value


def _days(text: str, whole: str) -> frozenset[int]:
    """The days of `mon-fri` or `sat,sun`; a range may go over Sunday."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ConfigError(f"hours {whole!r}", allowed=f"days {', '.join(DAYS)}")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(found)
