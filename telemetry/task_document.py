"""The first half of a task document: where data comes from, and how it becomes windows and features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fedsite.telemetry.errors import TaskError
from fedsite.telemetry.fields import check, check_below
from fedsite.telemetry.schema import MissingPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Where the task's data is when nobody says otherwise, and how its columns are named."""

    source: Literal["file", "synthetic"] = "file"
    generator: str | None = None  # of synthetic.generate
    file: str | None = None  # a file or folder below the data folder
    format: Literal["csv", "parquet", "npz"] | None = None  # None: by the file's ending
    site_column: str | None = None  # where one file holds several sites
    entity: tuple[str, ...] | str | None = None  # column(s) that name the privacy entity; None: the site is one entity
    time: str | None = None  # column that orders an entity's rows; None: rows as they stand
    duplicates: Literal["refuse", "last"] = "refuse"  # two rows of an entity with one time
    where: dict[str, tuple[str | int | bool, ...]] = field(default_factory=dict)  # rows kept: column -> values
    sites: int | None = None  # how many sites the demo takes

    def __post_init__(self) -> None:
        if self.source == "file" and not self.file:
            raise TaskError(
                "file is missing",
                allowed="a file or folder below FEDSITE_DATA, as source is file; a site's data.path wins over it",
            )
        if self.source == "synthetic" and not self.generator:
            raise TaskError("generator is missing", allowed="a generator's name, as source is synthetic")
        if self.file is not None:
            check_below("file", self.file)
        if self.sites is not None:
            check("sites", self.sites, 1, 1_000_000)

    @property
    def entity_columns(self) -> tuple[str, ...]:
        """The columns that name an entity together; empty where the site is one."""
        if self.entity is None:
            return ()
        return (self.entity,) if isinstance(self.entity, str) else self.entity


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """What happens where two neighbouring readings are more than one sampling step apart.

    Up to `longest` steps the gap is bridged: `drop` takes the two as neighbours, `hold` repeats the last reading on the
    grid, `interpolate` draws a line. No window ever crosses a longer gap. A window always ends on a real reading.
    """

    longest: int = 1
    policy: Literal["drop", "hold", "interpolate"] = "drop"

    def __post_init__(self) -> None:
        check("longest", self.longest, 1, 1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What happens where a reading is there but a channel has no value; hold and interpolate reach `longest` rows."""

    policy: MissingPolicy = "drop"
    longest: int = 1

    def __post_init__(self) -> None:
        check("longest", self.longest, 1, 1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How rows become windows."""

    length: int = 1  # rows
    stride: int = 1  # rows from one window's start to the next
    gap: Gap = field(default_factory=Gap)
    missing: Missing = field(default_factory=Missing)
    pad: Literal["none", "edge"] = "none"  # edge: a shorter run of rows is padded with its first row
    fold: int | None = None  # one row of channels becomes `fold` time steps of them (an image's rows)
    minimum: int = 1  # training windows below this are too few to take part

    def __post_init__(self) -> None:
        check("length", self.length, 1, 1_000_000)
        check("stride", self.stride, 1, 1_000_000)
        check("minimum", self.minimum, 1, 1_000_000_000)
        if self.fold is not None and (self.fold < 1 or self.length != 1):
            raise TaskError(
                f"fold is {self.fold} with length {self.length}", allowed="fold of 1 or more, with length 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """Rolling features: each kind turns a window of a channel into one number (band: one per band)."""

    kind: Literal["mean", "std", "min", "max", "rms", "slope", "range", "last", "rate", "lag", "band"]
    channels: tuple[str, ...] = ()  # names; empty: all of them
    bands: tuple[tuple[float, float], ...] = ()  # Hz, from low (included) to high (excluded)
    steps: tuple[int, ...] = ()  # lag: rows before the window's last
    minimum: float | None = None  # public bounds, tighter than the channels' ranges imply; clipped beyond them
    maximum: float | None = None

    def __post_init__(self) -> None:
        if (self.kind == "band") != bool(self.bands):
            raise TaskError(
                f"bands is {list(self.bands)} for kind {self.kind}", allowed="[[low, high], …] Hz for kind band"
            )
        if (self.kind == "lag") != bool(self.steps):
            found = f"steps is {list(self.steps)} for kind {self.kind}"
            raise TaskError(found, allowed="[1, 2, …] rows for kind lag")
        for low, high in self.bands:
            if not 0 <= low < high:
                raise TaskError(f"bands has [{low}, {high}]", allowed="0 <= low < high")
        if self.minimum is not None and self.maximum is not None and not self.minimum < self.maximum:
            raise TaskError(f"minimum is {self.minimum} and maximum {self.maximum}", allowed="minimum < maximum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Facts per asset (load class, age), joined to each reading: the latest known at its time, of its entity.

    Each of `columns` must be a channel of the task: context has units and public ranges like everything else.
    """

    file: str  # beside the site's data
    columns: tuple[str, ...]
    entity: str | None = None  # its column in this file; None: one entity, the site
    time: str | None = None  # since when a fact holds; None: always
    tolerance: float | None = None  # how old a fact may be, in units of time; None: any age

    def __post_init__(self) -> None:
        check_below("file", self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Alarms, maintenance, confirmed failures: rows of (entity, time, kind), joined to each reading by its time.

    `since` is a channel: time since the last event at or before the reading, capped at the channel's maximum.
    `within` is a label column: 1 when an event comes after the reading but at most `horizon` later; unknown (the window
    is not labelled) where the record ends before that.
    """

    file: str
    time: str
    entity: str | None = None
    kind: str | None = None  # column
    kinds: tuple[str, ...] = ()  # which ones; empty: all
    since: str | None = None
    within: str | None = None
    horizon: float | None = None  # in units of time

    def __post_init__(self) -> None:
        check_below("file", self.file)
        if (self.within is None) != (self.horizon is None):
            raise TaskError(f"within is {self.within} and horizon {self.horizon}", allowed="both or none")
        if self.horizon is not None and not self.horizon > 0:
            raise TaskError(f"horizon is {self.horizon}", allowed="above 0")
        if self.kinds and self.kind is None:
            raise TaskError(f"kinds is {list(self.kinds)}", allowed="with kind, the column that holds them")
