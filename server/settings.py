"""What `fedsite launch` is told: typed settings, filled by Hydra from conf/ and the command line.

`None` means the task's recommendation. Other commands that plan runs have a `Schema` of their own and read it the same
way (`fedsite simulate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from fedsite.protocol import shape
from fedsite.protocol.errors import ConfigError
from fedsite.server.plans.promises import PrivacySettings, ProtectionSettings
from fedsite.server.strategies import registry

CONFIG_MODULE = "fedsite.conf"
ROOT = "launch"
GROUPS = ("privacy", "protection", "rounds", "strategy", "release", "experiment")
TASK_KEY = "task_name"  # Hydra takes `task` for the folder of that name
OPEN = ("model.options", "strategy.options")  # whatever keys the architecture or the strategy has
LITERAL = ("task", "task_file", "model.init", "model.trainable")  # paths and globs: taken as they were typed

T = TypeVar("T", bound="LaunchSettings")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Where the model comes from."""

    name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)  # laid over the task's
    init: str | None = None  # safetensors file
    trainable: str = "all"  # all, head, or a glob


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """Overrides of what a site does in a round (protocol.plan.LocalPlan)."""

    steps: int | None = None
    sampling_rate: float | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    proximal: float | None = None
    learning_rate_decay: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsSettings:
    """Bounds of a round (protocol.plan.RoundsPlan)."""

    count: int | None = None
    minimum: int | None = None  # null: what the sum and the strategy need
    goal: int | None = None
    over_select: float
    deadline_s: float  # seconds
    wait_s: float  # seconds
    evaluate_every: int
    patience: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategySettings:
    """How updates become the next model."""

    name: str
    options: dict[str, float] = field(default_factory=dict)
    local: LocalSettings = field(default_factory=LocalSettings)  # what it needs of the sites; `local.…` is laid over


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSettings:
    """What is made of the result."""

    enabled: bool
    parity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSettings:
    """A run as it was asked for."""

    task: str
    task_file: str | None = None
    seed: int = 0
    model: ModelSettings
    local: LocalSettings
    privacy: PrivacySettings
    protection: ProtectionSettings
    rounds: RoundsSettings
    strategy: StrategySettings
    release: ReleaseSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema(Generic[T]):
    """The settings of one command."""

    root: str  # conf/ROOT.yaml
    groups: tuple[str, ...]  # folders of conf/ that it chooses from
    kind: type[T]  # what is filled
    literal: tuple[str, ...] = LITERAL
    help: str  # next step where something is wrong


LAUNCH: Final = Schema(root=ROOT, groups=GROUPS, kind=LaunchSettings, help="fedsite launch --help")


def compose(overrides: Sequence[str]) -> LaunchSettings:
    """Read conf/launch.yaml with `key=value` overrides laid over it.

    Raises:
        ConfigError: unknown key, group or value; the nearest one is named.
    """
    return read(LAUNCH, overrides)


def read(schema: Schema[T], overrides: Sequence[str]) -> T:
    """Read a command's settings with `key=value` overrides laid over them.

    Raises:
        ConfigError: unknown key, group or value; the nearest one is named.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        known = _known(schema.root)
        checked = [_check(schema, item, known) for item in overrides]
        try:
            config = hydra_compose(schema.root, overrides=checked)
            value: Any = OmegaConf.to_container(config, resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise _unread(schema, overrides, checked, str(error)) from None
    try:
        settings = shape.read(schema.kind, _renamed(value))
    except ConfigError as error:
        raise ConfigError(error.found, allowed=error.allowed, next_step=error.next_step or schema.help) from None
    if settings.task_file is not None and any(item.startswith("task=") for item in overrides):
        raise ConfigError("task and task_file are both given", allowed="one of them", next_step=schema.help)
    return settings


@cache
def _known(root: str) -> dict[str, Any]:
    """Every key of the settings, at its default; composed once, as a sweep reads hundreds of command lines."""
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    return _renamed(OmegaConf.to_container(hydra_compose(root), resolve=True))


def _unread(schema: Schema[T], overrides: Sequence[str], checked: Sequence[str], reason: str) -> ConfigError:
    """Which override Hydra's grammar does not take; where it takes each, what it says of them together."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for typed, item in zip(overrides, checked, strict=True):
        try:
            parser.parse_override(item)
        except HydraException:
            allowed = "key=value; a value with quotes, commas, brackets or braces in quotes of its own"
            return ConfigError(f"override {typed} cannot be read", allowed=allowed, next_step=schema.help)
    first = reason.partition("\n")[0]
    return ConfigError(f"{' '.join(overrides)}: {first}", next_step=schema.help)


def choices(group: str) -> list[str]:
    """Names in a group of conf/."""
    from importlib import resources

    folder = resources.files(CONFIG_MODULE).joinpath(group)
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def _check(schema: Schema[T], override: str, known: Any) -> str:
    """One override in Hydra's words, refused with the nearest name when it means nothing."""
    key, separator, value = override.partition("=")
    if not separator or not key or key.startswith(("+", "~")):
        raise ConfigError(f"argument {override!r}", allowed="key=value", next_step=schema.help)
    if key in schema.groups:
        if key == "strategy" and value in registry.installed():
            return f"strategy.name={_quoted(value)}"  # a package's, which has no file in conf/
        if value not in choices(key):
            raise ConfigError(f"{key}={value}", allowed=shape.nearest(value, choices(key)), next_step=schema.help)
        return override
    if key.partition(".")[0] == "data" and "data" not in known:
        raise ConfigError(
            f"override {key}", allowed="data is each site's own matter", next_step=f"at the site: fedsite up {override}"
        )
    if any(key.startswith(f"{prefix}.") for prefix in OPEN):
        return f"++{override}"
    node = known
    for depth, part in enumerate(parts := key.split(".")):
        if not isinstance(node, dict) or part not in node:
            here = ".".join(parts[:depth])
            names = [f"{here}.{name}" if here else name for name in node] if isinstance(node, dict) else [here]
            raise ConfigError(
                f"unknown override {key}",
                allowed=shape.nearest(key, names + ([] if here else ["experiment"])),
                next_step=schema.help,
            )
        node = node[part]
    if isinstance(node, dict):
        keys = ", ".join(f"{key}.{name}" for name in node)
        raise ConfigError(f"{override} sets a whole section", allowed=keys, next_step=schema.help)
    # Paths and globs are not Hydra's grammar: what the shell passed is meant as it stands.
    literal = key in schema.literal and value != "null"
    key = TASK_KEY if key == "task" else key
    return f"{key}={_quoted(value) if literal else value}"


def _renamed(value: Any) -> dict[str, Any]:
    return {"task" if key == TASK_KEY else key: item for key, item in value.items()}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def absolute(path: str) -> Path:
    """A path as the user meant it, relative to where the command was typed."""
    return Path(path).expanduser().absolute()
