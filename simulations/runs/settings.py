"""What `fedsite simulate` is told: the settings of `launch`, and how the run is simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from fedsite.protocol.errors import ConfigError
from fedsite.server import settings as launch
from fedsite.server.settings import LaunchSettings, Schema
from fedsite.simulations.attacks.spec import AttackSpec
from fedsite.simulations.audits.spec import AuditSpec
from fedsite.simulations.fleet.spec import FleetSpec
from fedsite.simulations.populations.spec import DriftSpec, PartitionSpec, ShiftSpec, check_sites


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineSettings:
    """What the federated model is compared with."""

    central: bool = True  # one model on pooled data
    local_only: int = 10  # sites that train a model alone; 0: none

    def __post_init__(self) -> None:
        _least("local_only", self.local_only, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings:
    """How a run is simulated; none of it is part of its plan."""

    engine: Literal["vectorised", "flower"] = "vectorised"
    executor: str = "auto"  # a name of vectorised.choice
    device: str = "cpu"
    workers: int = 1  # processes
    backend: Literal["local", "ray"] = "local"
    sites: int | None = None
    cohort: int | None = None  # sites drawn in each round
    epochs: int | None = None  # instead of the plan's steps
    batch: int | None = None  # windows
    evaluate_every: int | None = None  # rounds
    checkpoint_s: float = 10.0  # seconds
    baselines: BaselineSettings = field(default_factory=BaselineSettings)
    partition: PartitionSpec = field(default_factory=PartitionSpec)
    shift: ShiftSpec = field(default_factory=ShiftSpec)
    drift: DriftSpec = field(default_factory=DriftSpec)
    fleet: FleetSpec = field(default_factory=FleetSpec)
    attack: AttackSpec = field(default_factory=AttackSpec)
    audit: AuditSpec = field(default_factory=AuditSpec)

    def __post_init__(self) -> None:
        for name in ("workers", "cohort", "epochs", "batch", "evaluate_every"):
            _least(name, getattr(self, name), 1)
        _least("checkpoint_s", self.checkpoint_s, 0)
        if self.sites is not None:
            check_sites(self.sites)
        if (self.epochs is None) != (self.batch is None):
            raise ConfigError(
                f"epochs is {self.epochs} and batch is {self.batch}",
                allowed="both or neither",
                next_step="simulation.epochs=1 simulation.batch=10",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Where every site's data is; at a real site it is the site's own matter."""

    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateSettings(LaunchSettings):
    """A simulated run as it was asked for: what `launch` takes, and more."""

    data: DataSettings = field(default_factory=DataSettings)
    simulation: SimulationSettings = field(default_factory=SimulationSettings)


SIMULATE: Final = Schema(
    root="simulate",
    groups=(*launch.GROUPS, "simulation"),
    kind=SimulateSettings,
    literal=(
        *launch.LITERAL,
        "data.path",
        "simulation.fleet.calibration",
        "simulation.fleet.availability.trace",
    ),
    help="fedsite simulate --help",
)


def compose(overrides: Sequence[str]) -> SimulateSettings:
    """Read conf/simulate.yaml with `key=value` overrides laid over it.

    Raises:
        ConfigError: unknown key, group or value; the nearest one is named.
    """
    return launch.read(SIMULATE, overrides)


def _least(name: str, value: float | None, least: int) -> None:
    if value is not None and value < least:
        raise ConfigError(f"{name} is {value}", allowed=f"{least} or more")
