"""What `fedsite launch` is told about privacy and protection, and which of it cannot be asked for together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import SMALL_NOISES, PrivacyMode


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePrivacySettings:
    """Overrides of protocol.plan.SitePrivacyPlan; the noise in the sum is solved from `epsilon` unless it is given."""

    epsilon: float | None = None
    delta: float | None = None
    clip: float | None = None
    noise_multiplier: float | None = None
    mechanism: str | None = None


_OWN: Final = ("epsilon", "noise_multiplier", "delta", "clip", "batch", "unit", "accountant")  # of a site's own noise
_IN_SUMS: Final = tuple(item.name for item in dataclasses.fields(SitePrivacySettings))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacySettings(PrivacyMode):
    """Overrides of protocol.plan.PrivacyPlan; the noise of DP-SGD is solved from `epsilon` unless it is given."""

    unit: str | None = None
    epsilon: float | None = None
    delta: float | None = None
    clip: float | None = None
    batch: float | None = None
    noise_multiplier: float | None = None
    statistics_noise: float | None = None
    evaluation_noise: float | None = None
    calibration_noise: float | None = None
    accountant: str | None = None
    site: SitePrivacySettings = field(default_factory=SitePrivacySettings)

    def __post_init__(self) -> None:
        if self.sample_level:
            _one(self.epsilon, self.noise_multiplier, "privacy", self.mode)
        else:
            _none({name: getattr(self, name) for name in _OWN}, "privacy", self.mode, ("sample", "both"))
        if self.site_level:
            _one(self.site.epsilon, self.site.noise_multiplier, "privacy.site", self.mode)
        else:
            sums = {name: getattr(self.site, name) for name in _IN_SUMS}
            _none(sums, "privacy.site", self.mode, ("site", "both"))
        if self.mode == "none":
            small = {name: getattr(self, name) or None for name in SMALL_NOISES}
            _none(small, "privacy", self.mode, ("sample", "site"))
        if self.mode == "both":
            for name in SMALL_NOISES:
                if getattr(self, name):
                    raise ConfigError(
                        f"privacy.{name} is {getattr(self, name):g} with privacy=both",
                        allowed="0: one release would need noise for two claims at once",
                        next_step=f"privacy=sample privacy.{name}={getattr(self, name):g}, or privacy=site",
                    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TermsSettings:
    """Overrides of protocol.secagg.manifest.Terms."""

    min_cohort: int | None = None
    min_survivors: int | None = None
    colluding: int | None = None
    corrupt: float | None = None
    dropped: float | None = None
    stream: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectionSettings:
    """How updates travel: overrides of protocol.plan.ProtectionPlan."""

    mode: Literal["secagg", "sealed", "none"]
    terms: TermsSettings = field(default_factory=TermsSettings)
    sites: int | None = None
    examples_max: int | None = None
    bound: float | None = None
    groups: int | None = None
    stage_s: float | None = None  # seconds
    retries: int | None = None


def _one(epsilon: float | None, noise: float | None, where: str, mode: str) -> None:
    """Exactly one of target and noise is given."""
    if (epsilon is None) == (noise is None):
        raise ConfigError(
            f"{where}.epsilon is {epsilon} and {where}.noise_multiplier is {noise} with privacy={mode}",
            allowed="one of them",
            next_step=f"{where}.epsilon=8, or {where}.epsilon=null {where}.noise_multiplier=1.1",
        )


def _none(given: dict[str, Any], where: str, mode: str, modes: tuple[str, str]) -> None:
    """Nothing is set that only these other modes have: it would be dropped without a word.

    Raises:
        ConfigError: something is; the modes that have it, or this mode's own setting of that name.
    """
    for name, value in given.items():
        if value is None:
            continue
        text = f"{value:g}" if isinstance(value, float) else str(value)
        found, allowed = f"{where}.{name} is {text} with privacy={mode}", f"privacy={' or '.join(modes)}"
        if mode == "none":
            other = f"{modes[0]} protection=secagg" if modes[0] == "site" else modes[0]
            raise ConfigError(found, allowed=allowed, next_step=_launch(other, where, name, text))
        if name in _OWN and name in _IN_SUMS:
            own = "privacy" if where == "privacy.site" else "privacy.site"
            raise ConfigError(
                found,
                allowed=f"{own}.{name}, or privacy=both, which has two claims",
                next_step=_launch(mode, own, name, text),
            )
        raise ConfigError(found, allowed=allowed, next_step=f"leave {where}.{name} out")


def _launch(mode: str, where: str, name: str, value: str) -> str:
    """A command that means it; a group brings an ε, which noise is given instead of."""
    instead = f"{where}.epsilon=null " if name == "noise_multiplier" else ""
    return f"fedsite launch privacy={mode} {instead}{where}.{name}={value}"
