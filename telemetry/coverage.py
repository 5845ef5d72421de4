"""Which stretch of whose record a task's windows were cut from: what a privacy ledger charges, under any file name.

Two coverages overlap where they share an entity at a time. What cannot be told apart counts as the same: a task without
an entity column covers the whole site, one without a time column covers an entity's whole record, and intervals on
different clocks are not compared at all. The task document, and with it which columns name an entity and tell the time,
is the centre's: names out of different columns are not compared either, and times of different columns are different
clocks. So a spend may be counted too often, and never too seldom. An entity under a new name in the same column cannot
be recognised from here, which is left to the ledger's other key, the source itself; a count that starts anew under an
old name overlaps its old record.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.gaps import JITTER
from fedsite.telemetry.schema import EPOCH
from fedsite.telemetry.task import Task

SITE = ""  # key of the whole site: it overlaps every entity
MOST = 100_000  # entities named one by one; of more, the site is covered as a whole
UTC = "utc"  # clock of times that are seconds since 1970
EVER = (-math.inf, math.inf)

Interval = tuple[float, float]  # first and last, both included


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Intervals by `entity_key` (or `SITE`), in times of `clock`: UTC or the unit of a count, and of which column."""

    clock: str
    entities: Mapping[str, Interval]
    columns: tuple[str, ...] = ()  # that name an entity together

    def overlaps(self, other: Coverage) -> bool:
        """Whether a record may be in both."""
        common = self.entities.keys() & other.entities.keys()
        if SITE in self.entities or SITE in other.entities:
            pairs = [(a, b) for a in self.entities.values() for b in other.entities.values()]
        else:
            if self.columns != other.columns:
                return bool(self.entities and other.entities)
            pairs = [(self.entities[name], other.entities[name]) for name in common]
        if self.clock != other.clock:
            return bool(pairs)
        return any(a[0] <= b[1] and b[0] <= a[1] for a, b in pairs)


def coverage(task: Task, data: SiteData) -> Coverage:
    """What a site's windows cover, training and holdout, with every reading that any of them or its label looks at.

    `data` gives the time of a window's last reading; how far it reaches from there is the task's largest possible
    reach, so an interval is rather too long than too short.
    """
    parts = [part for part in (data.train, data.holdout) if len(part)]
    times = np.concatenate([part.time for part in parts]) if parts else np.zeros(0)
    clock = _clock(task, times)
    names = {entity_key(part.entities[number]) for part in parts for number in np.unique(part.entity)}
    if not task.data.entity_columns or len(names) > MOST:
        first, last = _reached(task, times.min(), times.max()) if len(times) else EVER
        return Coverage(clock=clock, entities={SITE: (first, last)} if parts else {})
    found: dict[str, Interval] = {}
    for part in parts:
        for name, (first, last) in _spans(part).items():
            first, last = _reached(task, first, last)
            known = found.get(name, (first, last))
            found[name] = (min(first, known[0]), max(last, known[1]))
    return Coverage(clock=clock, entities=found, columns=task.data.entity_columns)


def entity_key(name: str) -> str:
    """An entity's name as it is compared: 7, 007, "7.0" and " 7" are one entity, and so are PUMP-1 and pump-1."""
    return "/".join(_part(part) for part in name.split("/"))


def plain(found: Coverage) -> dict[str, Any]:
    """A coverage as JSON: an open end is null."""
    ends = {name: [_finite(first), _finite(last)] for name, (first, last) in found.entities.items()}
    return {"clock": found.clock, "entities": ends, "columns": list(found.columns)}


def from_plain(value: Mapping[str, Any]) -> Coverage:
    """The inverse of `plain`."""
    entities = {
        str(name): (EVER[0] if first is None else float(first), EVER[1] if last is None else float(last))
        for name, (first, last) in value["entities"].items()
    }
    return Coverage(clock=str(value["clock"]), entities=entities, columns=tuple(map(str, value.get("columns", ()))))


def _clock(task: Task, times: NDArray[np.float64]) -> str:
    if task.data.time is None:
        return "none"
    if task.rate.seconds is not None and len(times) and times.min() >= EPOCH:
        return f"{UTC} {task.data.time}"
    return f"{task.rate.unit} {task.data.time}"


def _spans(windows: Windows) -> dict[str, Interval]:
    """First and last window end of each entity that has windows."""
    first = np.full(len(windows.entities), math.inf)
    last = np.full(len(windows.entities), -math.inf)
    np.minimum.at(first, windows.entity, windows.time)
    np.maximum.at(last, windows.entity, windows.time)
    found: dict[str, Interval] = {}
    for number in np.unique(windows.entity).tolist():
        name = entity_key(windows.entities[number])
        known = found.get(name, (math.inf, -math.inf))
        found[name] = (min(known[0], float(first[number])), max(known[1], float(last[number])))
    return found


def _reached(task: Task, first: float, last: float) -> Interval:
    if task.data.time is None:
        return EVER
    behind, ahead = _reach(task)
    return float(first) - behind, float(last) + ahead


def _reach(task: Task) -> Interval:
    """How far before a window's last reading, and after it, anything may lie that it or its label depends on."""
    window, step = task.window, task.rate.step
    apart = (window.gap.longest + JITTER) * step  # of two neighbouring rows, at most
    policies = {channel.missing or window.missing.policy for channel in task.channels}
    borrowed = window.missing.longest * apart if policies & {"hold", "interpolate"} else 0.0
    behind = (window.length - 1) * apart + borrowed
    ahead = borrowed if "interpolate" in policies else 0.0
    if task.label.kind == "horizon":
        ahead = max(ahead, task.label.ahead * apart)
    bounds = {channel.name: channel.maximum for channel in task.single_channels}
    oldest = [bounds[events.since] for events in task.events if events.since is not None]
    oldest += [math.inf if facts.tolerance is None else facts.tolerance for facts in task.context]
    later = [events.horizon for events in task.events if events.horizon is not None]
    # A joined fact belongs to a reading, so both reaches add up.
    return behind + max([0.0, *oldest]), ahead + max([0.0, *later])


def _part(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).strip().casefold()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else text


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
