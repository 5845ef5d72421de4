"""What a simulated fleet of sites is asked to be: when sites are there, how fast they are, and how they are linked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fedsite.protocol.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailabilitySpec:
    """When a site is there to be asked."""

    kind: Literal["always", "bernoulli", "diurnal", "trace"] = "always"
    probability: float = 0.9  # bernoulli: in each round; diurnal: within its hours
    from_hour: float = 22.0  # diurnal: local time at which a site comes; past to_hour the window spans midnight
    to_hour: float = 6.0
    zones: int = 1  # diurnal: time zones that sites are spread over, one hour apart
    start_hour: float = 0.0  # diurnal: time of the first zone when the run begins
    trace: str | None = None  # trace: CSV of site, from_s, to_s (seconds of the run); sites beyond the file's repeat it

    def __post_init__(self) -> None:
        _range("probability", self.probability, 0.0, 1.0)
        for name in ("from_hour", "to_hour", "start_hour"):
            _range(name, getattr(self, name), 0.0, 24.0)
        _range("zones", self.zones, 1, 24)
        if (self.kind == "trace") != (self.trace is not None):
            raise ConfigError(
                f"kind is {self.kind} and trace is {self.trace}",
                allowed="a trace with kind=trace, and only there",
                next_step="simulation.fleet.availability.kind=trace simulation.fleet.availability.trace=FILE.csv",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedSpec:
    """How fast a site trains: log-normal over the sites."""

    windows_s: float | None = None  # windows trained in a second at the median site; null: as calibrated
    spread: float = 0.0  # deviation of the logarithm over sites; 0.5: the slowest of 100 is 3.5 times slower
    jitter: float = 0.0  # the same from round to round, at one site

    def __post_init__(self) -> None:
        if self.windows_s is not None:
            _range("windows_s", self.windows_s, 1e-3, 1e12)
        _range("spread", self.spread, 0.0, 3.0)
        _range("jitter", self.jitter, 0.0, 3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpec:
    """What lies between a site and the server."""

    up: float | None = None  # bytes/s at the median site; null: no time of their own, as within one machine
    down: float | None = None
    latency_s: float = 0.0  # added to every message and to every answer
    spread: float = 0.0  # deviation of the logarithm of a site's bytes/s over sites
    loss: float = 0.0  # probability that a site that was asked never answers in a round

    def __post_init__(self) -> None:
        for name in ("up", "down"):
            if getattr(self, name) is not None:
                _range(name, getattr(self, name), 1.0, 1e12)
        _range("latency_s", self.latency_s, 0.0, 3600.0)
        _range("spread", self.spread, 0.0, 3.0)
        _range("loss", self.loss, 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSpec:
    """A fleet; as it stands, one whose sites are always there and as fast as those that were measured."""

    availability: AvailabilitySpec = field(default_factory=AvailabilitySpec)
    speed: SpeedSpec = field(default_factory=SpeedSpec)
    link: LinkSpec = field(default_factory=LinkSpec)
    hosts: Literal["own", "shared"] = "own"  # shared: all processes on one machine, as in a demo
    calibration: str | None = None  # report.json of a demo run; null: the figures that fedsite was measured with

    @property
    def binding(self) -> bool:
        """Whether who arrives depends on the fleet; as it stands everybody does, and minutes are foretold alone."""
        plain = FleetSpec(hosts=self.hosts, calibration=self.calibration)
        return self != plain


def _range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}", allowed=f"{low:g} to {high:g}")
