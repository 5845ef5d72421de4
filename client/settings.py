"""The site's own settings: `site.yaml` in the site's state directory, with `key=value` overrides from the command line.

The centre never sees or sets any of it. Site policy wins over everything a plan asks for: a plan can only tighten.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedsite.client.consent import hours
from fedsite.protocol import durations, shape
from fedsite.protocol.errors import ConfigError

FILE = "site.yaml"
_TASK = re.compile(r"[^@:]+(@sha256:[0-9a-f]{64})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """Where one task's telemetry is at this site; what is not given comes from `data`."""

    path: str | None = None  # file or folder; relative to the directory the command runs in
    site: int | str | None = None  # value of the task's site column, where one file holds several sites
    columns: dict[str, str] = field(default_factory=dict)  # task's channel -> column in the file
    seed: int | None = None  # of the synthetic plant
    oldest: str | None = None  # how old the newest reading may be, such as 2d; null: any age

    def __post_init__(self) -> None:
        _age(self.oldest)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Where telemetry is, for every task that `tasks` does not name."""

    path: str | None = None
    site: int | str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    oldest: str | None = None
    tasks: dict[str, SourceSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _age(self.oldest)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """What the site lets the centre ask for; checked before any data is read."""

    tasks: tuple[str, ...] | None = None  # NAME, or NAME@sha256:HASH of the task document; null: any
    minimum_protection: Literal["secagg", "sealed", "none"] = "sealed"  # none: the server may read single updates
    cohort_min: int = 3  # sites that a sum must be over, this one included; of 2 each can work out the other's
    colluding_min: int = 0  # sites that may side with the server, against which a secure sum must hold at least
    require_privacy: bool = True  # false: runs without differential privacy are allowed, and are not private
    epsilon_max: float = 10.0  # ε of all runs on the same data together, per privacy unit, at `delta`
    delta: float = 1e-5  # δ at which `epsilon_max` is counted; a plan may not ask for a larger one
    epsilon_round: float | None = None  # ε that one round of training may cost a unit by itself; null: not bounded
    epsilon_task: float | None = None  # ε of all runs of one task on the same data; null: `epsilon_max` alone
    steps_max: int = 100_000  # optimizer steps in one round
    bytes_max: int = 1 << 30  # bytes of one instruction
    models: tuple[str, ...] | None = None  # architectures, or SHA-256 of the weights a run starts from; null: any
    strategies: tuple[str, ...] | None = None  # names of the strategies allowed; null: any
    units: tuple[Literal["window", "entity", "site"], ...] | None = None  # that a claim must be about; null: any
    approval: Literal["automatic", "once", "each"] = "automatic"  # who agrees: these rules, or a person as well
    hours: tuple[str, ...] = ()  # local time in which work may begin, such as "22:00-06:00"; empty: always
    max_celsius: float | None = None  # of the processor, when work begins
    mains_only: bool = False  # nothing begins on battery
    no_metered: bool = False  # nothing begins on a metered network
    memory_free: int | None = None  # bytes that must be free when work begins
    load_max: float | None = None  # processes that want to run, per processor, when work begins
    cpu_threads: int = 1  # of the training process
    niceness: int = 0  # of the training process: 19 yields to everything else

    def __post_init__(self) -> None:
        _range("cohort_min", self.cohort_min, 2, 100_000)
        _range("colluding_min", self.colluding_min, 0, 100_000)
        _range("epsilon_max", self.epsilon_max, 0.0, 1e6)
        _range("delta", self.delta, 1e-15, 0.1)
        _range("steps_max", self.steps_max, 1, 1_000_000)
        _range("bytes_max", self.bytes_max, 1 << 16, 1 << 33)
        _range("epsilon_round", self.epsilon_round, 0.0, 1e6)
        _range("epsilon_task", self.epsilon_task, 0.0, 1e6)
        _range("max_celsius", self.max_celsius, 0.0, 200.0)
        _range("memory_free", self.memory_free, 0, 1 << 46)
        _range("load_max", self.load_max, 0.0, 1e3)
        _range("cpu_threads", self.cpu_threads, 1, 1024)
        _range("niceness", self.niceness, 0, 19)
        for window in self.hours:
            hours.read(window)
        for entry in self.tasks or ():
            if _TASK.fullmatch(entry) is None:
                # A beginning of a hash that is short enough to type is short enough to find another document for.
                raise ConfigError(
                    f"tasks holds {entry[:120]!r}",
                    allowed="NAME or NAME@sha256:HASH, with all 64 digits of the hash, lower case",
                    next_step="fedsite policy test PLAN.json prints the entry of a plan's task",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """How the agent behaves."""

    idle_worker_s: float = 300.0  # seconds without work after which the training process ends
    operation_s: float = 3600.0  # seconds one instruction may take when it names no expiry
    worker_memory: int | None = None  # bytes the training process may take; null: half of this host's; 0: no bound
    metered: bool | Literal["auto"] = "auto"  # whether the network is metered; auto: the network manager is asked
    log: Literal["debug", "info", "warning"] = "info"

    def __post_init__(self) -> None:
        _range("idle_worker_s", self.idle_worker_s, 0.0, 86_400)
        _range("operation_s", self.operation_s, 1, 86_400)
        if self.worker_memory:
            _range("worker_memory", self.worker_memory, 1 << 29, 1 << 46)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the operator may set."""

    schema: Literal["fedsite.site/1"] = "fedsite.site/1"
    data: DataSettings = field(default_factory=DataSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    agent: AgentSettings = field(default_factory=AgentSettings)

    def source(self, task: str) -> SourceSettings:
        """Where the named task's data is: its own entry laid over the common one."""
        own = self.data.tasks.get(task, SourceSettings())
        return SourceSettings(
            path=self.data.path if own.path is None else own.path,
            site=self.data.site if own.site is None else own.site,
            columns={**self.data.columns, **own.columns},
            seed=self.data.seed if own.seed is None else own.seed,
            oldest=self.data.oldest if own.oldest is None else own.oldest,
        )


class SettingsFile:
    """`site.yaml` as it is now, with the overrides of the command line: read anew whenever it has changed."""

    def __init__(self, directory: Path, overrides: Sequence[str] = ()) -> None:
        """Read nothing yet; arguments as for `load`."""
        self._directory = directory
        self.overrides = tuple(overrides)
        self._known: Settings | None = None
        self.digest = ""  # SHA-256, hex, of the file as it was last read without an error; of nothing without one

    def current(self) -> Settings:
        """The settings that hold now.

        Raises:
            ConfigError, TelemetryError: as `load`; what held before holds no more.
        """
        data = _read(self._directory / FILE)
        digest = hashlib.sha256(data or b"").hexdigest()
        if self._known is None or digest != self.digest:
            self._known, self.digest = None, ""
            self._known = _settings(self._directory / FILE, data, self.overrides)
            self.digest = digest
        return self._known


def load(directory: Path, overrides: Sequence[str] = ()) -> Settings:
    """Read `site.yaml` below `directory` when it is there, and lay `key=value` overrides over it.

    Raises:
        ConfigError: malformed YAML, unknown key (with the nearest one), or a value out of range; names file and key.
    """
    return SettingsFile(directory, overrides).current()


def _read(path: Path) -> bytes | None:
    """The file's bytes, None without one.

    Raises:
        TelemetryError: it is there and cannot be read, or is too large.
    """
    from fedsite.telemetry import yaml_text

    return yaml_text.read_bytes(path) if path.exists() else None


def _settings(path: Path, data: bytes | None, overrides: Sequence[str]) -> Settings:
    from fedsite.telemetry import yaml_text

    value: Any = {} if data is None else (yaml_text.parse_bytes(data, path) or {})
    if not isinstance(value, dict):
        raise ConfigError(f"file {path} holds {type(value).__name__}", allowed="keys data, policy, agent")
    try:
        shape.read(Settings, value)
    except ConfigError as error:
        raise ConfigError(
            f"file {path}: {error.found}", allowed=error.allowed, next_step=error.next_step or f"edit {path}"
        ) from None
    for override in overrides:
        _lay(value, override)
    try:
        return shape.read(Settings, value)
    except ConfigError as error:
        raise ConfigError(
            f"override {error.found}", allowed=error.allowed, next_step=error.next_step or "fedsite up --help"
        ) from None


def state_directory() -> Path:
    """The site's state directory (`FEDSITE_HOME` or the XDG state directory, then `site`); not created."""
    from fedsite.protocol.storage import state_home

    return state_home() / "site"


def absolute(path: str) -> Path:
    """A path of the operator's, with `~` and the working directory filled in."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def _lay(value: dict[str, Any], override: str) -> None:
    """Put one `a.b.c=text` into the nested mapping; the text is read as YAML."""
    from fedsite.telemetry import yaml_text

    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"override {override!r}", allowed="key=value, such as data.path=telemetry.parquet")
    names = key.strip().split(".")
    if names[-1] == "path" and not text.strip():
        # An unset shell variable must not mean "the task's own file".
        raise ConfigError(f"override {key} is empty", allowed="a file or folder", next_step=f"{key}=FILE_OR_FOLDER")
    at = value
    for name in names[:-1]:
        inner = at.get(name)
        if not isinstance(inner, dict):
            inner = {}
            at[name] = inner
        at = inner
    # A path or a name is text even where YAML would see something else in it.
    at[names[-1]] = text if names[-1] == "path" else yaml_text.parse(text, f"override {key}")


def _range(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise ConfigError(f"{name} is {value}", allowed=f"{low} to {high}")


def _age(oldest: str | None) -> None:
    if oldest is not None:
        durations.seconds(oldest, "oldest is", example="data.oldest=2d")
