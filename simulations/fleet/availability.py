"""Which sites are there when a round opens: always, by chance, by the hour, or as a trace of a real fleet says."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import DataError
from fedsite.simulations.fleet.spec import AvailabilitySpec
from fedsite.simulations.runs.draws import Draw, Ints, Reals, uniforms

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Times at which sites were there. Shapes: `site`, `since`, `until` [interval]; seconds since the run began."""

    sites: int
    site: Ints
    since: Reals
    until: Reals

    def there(self, at_s: float) -> NDArray[np.bool_]:
        """[site of the trace]."""
        found = np.zeros(self.sites, bool)
        found[self.site[(self.since <= at_s) & (at_s < self.until)]] = True
        return found

    @classmethod
    def read(cls, path: Path) -> Trace:
        """A CSV with the columns site, from_s and to_s, a line for each time that a site was there.

        Raises:
            DataError: no such file, another form, or no line in it.
        """
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = [(row["site"], float(row["from_s"]), float(row["to_s"])) for row in csv.DictReader(file)]
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise _unread(path, f"{type(error).__name__}: {error}") from None
        if not rows:
            raise _unread(path, "no line in it")
        names = {name: number for number, name in enumerate(dict.fromkeys(row[0] for row in rows))}
        return cls(
            sites=len(names),
            site=np.array([names[row[0]] for row in rows], np.int64),
            since=np.array([row[1] for row in rows]),
            until=np.array([row[2] for row in rows]),
        )


def there(
    spec: AvailabilitySpec, trace: Trace | None, seed: int, round_number: int, sites: Ints, at_s: float
) -> NDArray[np.bool_]:
    """Whether each of `sites` [site] is there, `at_s` seconds after the run began."""
    if spec.kind == "always":
        return np.ones(len(sites), bool)
    if spec.kind == "trace" and trace is not None:
        return np.asarray(trace.there(at_s)[sites % trace.sites])
    found = uniforms(seed, Draw.THERE, round_number, sites, count=1)[:, 0] < spec.probability
    if spec.kind == "diurnal":
        found &= _within(local_hour(spec, seed, sites, at_s), spec.from_hour, spec.to_hour)
    return found


def local_hour(spec: AvailabilitySpec, seed: int, sites: Ints, at_s: float) -> Reals:
    """The time of day at each site, hours."""
    zone = np.floor(uniforms(seed, Draw.ZONE, sites, count=1)[:, 0] * spec.zones)
    found: Reals = (spec.start_hour + at_s / HOUR_S + zone) % 24.0
    return found


def _within(hour: Reals, since: float, until: float) -> NDArray[np.bool_]:
    if since <= until:
        return (hour >= since) & (hour < until)
    return (hour >= since) | (hour < until)


def _unread(path: Path, why: str) -> DataError:
    columns: Sequence[str] = ("site", "from_s", "to_s")
    return DataError(
        f"trace {path}: {why}", allowed=f"CSV with the columns {', '.join(columns)}; seconds since the run began"
    )
