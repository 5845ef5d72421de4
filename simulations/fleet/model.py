"""A fleet of sites: for the sites drawn for a round, who is asked, who arrives, how long it takes and what travels.

A round goes as on the central host (server.rounds, server.sums): of the sites that are there, in random order, as many
as the plan wants are asked; each exchange closes by the machine's rules; a secure sum is its stages one after the
other, and is lost when too few of its sites are left. Left out: second attempts at a sum, sites that come late.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsite.server.rounds.machine import RoundOutcome
from fedsite.simulations.fleet import availability, calibration
from fedsite.simulations.fleet import work as works
from fedsite.simulations.fleet.availability import Trace
from fedsite.simulations.fleet.calibration import MEASURED, Calibration
from fedsite.simulations.fleet.exchange import served
from fedsite.simulations.fleet.passing import passing
from fedsite.simulations.fleet.spec import FleetSpec
from fedsite.simulations.fleet.work import Stage, Work
from fedsite.simulations.runs.draws import Draw, Ints, Reals, normals, uniforms

_LOOKS = 60  # times that the wait for sites is cut into


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One round. Shapes: by site asked."""

    number: int
    outcome: RoundOutcome
    reason: str
    waited: float  # seconds until enough sites were there
    seconds: float  # with the wait
    asked: Ints  # [asked] sites, rising
    present: Ints  # sites whose update is in the model, rising; none where the round was abandoned
    bytes_up: Reals  # [asked]
    bytes_down: Reals  # [asked]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Everything of it follows from the spec, the seed and a site's number."""

    spec: FleetSpec
    seed: int
    measured: Calibration
    alone_s: float | None = None  # windows of the plan that one process trains in a second (probe.py)
    trace: Trace | None = None

    @classmethod
    def of(cls, spec: FleetSpec, seed: int, *, alone_s: float | None = None) -> Fleet:
        """With the calibration and the trace that the spec names.

        Raises:
            ConfigError: the calibration is no report of a demo.
            DataError: the trace cannot be read.
        """
        trace = spec.availability.trace
        return cls(
            spec=spec,
            seed=seed,
            measured=MEASURED if spec.calibration is None else calibration.read(Path(spec.calibration)),
            alone_s=alone_s,
            trace=None if trace is None else Trace.read(Path(trace)),
        )

    def there(self, round_number: int, sites: Ints, at_s: float) -> Ints:
        """Those of `sites` that are there."""
        found = availability.there(self.spec.availability, self.trace, self.seed, round_number, sites, at_s)
        return sites[found]

    def speed(self, round_number: int, sites: Ints) -> Reals:
        """Windows that each site trains in a second, [site]."""
        spec, measured = self.spec.speed, self.measured
        usual = measured.windows_s if self.alone_s is None else measured.efficiency * self.alone_s
        median = usual if spec.windows_s is None else spec.windows_s
        steady = spec.spread * normals(self.seed, Draw.SPEED, sites, count=1)[:, 0]
        jitter = spec.jitter * normals(self.seed, Draw.JITTER, round_number, sites, count=1)[:, 0]
        return np.asarray(median * np.exp(steady + jitter))

    def link_s(self, sites: Ints, up: float, down: float) -> Reals:
        """Seconds that messages of so many bytes are on the way to and from each site, [site]."""
        spec = self.spec.link
        factor = np.exp(spec.spread * normals(self.seed, Draw.LINK, sites, count=2))
        found = np.full(len(sites), 2.0 * spec.latency_s)
        for number, (size, rate) in enumerate(((up, spec.up), (down, spec.down))):
            if rate is not None:
                found += size / (rate * factor[:, number])
        return found

    def round(self, number: int, drawn: Ints, work: Work, *, at_s: float = 0.0) -> Timing:
        """What becomes of a round.

        Args:
            number: from 1.
            drawn: sites that may be asked.
            work: what the plan makes them do.
            at_s: when it opens, seconds since the run began.
        """
        bounds = work.plan.rounds
        there, waited = self._gathered(number, drawn, work, at_s)
        wanted = len(there) if bounds.goal is None else math.ceil(bounds.goal * bounds.over_select)
        if work.secure:
            wanted = min(wanted, work.plan.protection.sites * work.plan.protection.groups)
        order = np.argsort(uniforms(self.seed, Draw.ORDER, number, there, count=1)[:, 0])
        asked = there[order[:wanted]]

        def answers(stage: Stage, places: Ints) -> Reals:
            return self.answers(number, asked[places], stage, work.windows[asked[places]])

        found = passing(work, self._lost(number, asked, len(work.stages)), answers)
        up = np.array([stage.bytes_up + self.measured.header_up for stage in work.stages])
        down = np.array([stage.bytes_down + self.measured.header_down for stage in work.stages])
        rising = np.argsort(asked)
        return Timing(
            number=number,
            outcome=found.outcome,
            reason=found.reason,
            waited=waited,
            seconds=waited + found.seconds + self.measured.round_s,
            asked=asked[rising],
            present=np.sort(asked[found.counted]),
            bytes_up=(up @ found.answered)[rising],
            bytes_down=(down @ found.exchanges)[rising],
        )

    def answers(self, number: int, sites: Ints, stage: Stage, windows: Reals) -> Reals:
        """Seconds after which each answer of an exchange has been dealt with, [site]."""
        own = self.link_s(sites, stage.bytes_up + self.measured.header_up, stage.bytes_down + self.measured.header_down)
        trained = windows / self.speed(number, sites) if stage.name in works.TRAINS else np.zeros(len(sites))
        if self.spec.hosts == "shared":
            return served(own, (self.measured.exchange_s + trained) / self.measured.cores)
        return served(own + self.measured.agent_s + trained, np.full(len(sites), self.measured.server_s))

    def _gathered(self, number: int, drawn: Ints, work: Work, at_s: float) -> tuple[Ints, float]:
        """The sites that are there, once they are enough or the plan waits no longer; and the wait, seconds."""
        longest = work.plan.rounds.wait_s
        # By chance alone it is drawn once a round; times of day and traces go on.
        looks = _LOOKS if self.spec.availability.kind in ("diurnal", "trace") else 0
        for look in range(looks + 1):
            waited = longest * look / _LOOKS
            found = self.there(number, drawn, at_s + waited)
            if len(found) >= work.plan.rounds.minimum:
                return found, waited
        return found, longest

    def _lost(self, number: int, sites: Ints, stages: int) -> Ints:
        """The exchange that each site does not answer, nor any later one; -1 where it answers all."""
        if not self.spec.link.loss:
            return np.full(len(sites), -1)
        drawn = uniforms(self.seed, Draw.LOST, number, sites, count=1)[:, 0] / self.spec.link.loss
        return np.where(drawn < 1.0, np.minimum(drawn * stages, stages - 1), -1).astype(np.int64)
