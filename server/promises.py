"""What `fedsite launch` is told about privacy and protection, and which of it cannot be asked for together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import SMALL_NOISES


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePrivacySettings:
    """Overrides of protocol.plan.SitePrivacyPlan; the noise in the sum is solved from `epsilon` unless it is given."""

    epsilon: float | None = None
    delta: float | None = None
    clip: float | None = None
    noise_multiplier: float | None = None
    mechanism: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacySettings:
    """Overrides of protocol.plan.PrivacyPlan; the noise of DP-SGD is solved from `epsilon` unless it is given."""

    mode: Literal["none", "sample", "site", "both"]
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

    @property
    def sample_level(self) -> bool:
        """Whether each site noises what it releases by itself."""
        return self.mode in ("sample", "both")

    @property
    def site_level(self) -> bool:
        """Whether every released sum holds noise of all sites."""
        return self.mode in ("site", "both")

    def __post_init__(self) -> None:
        own = {name: getattr(self, name) for name in ("epsilon", "noise_multiplier", "delta", "clip", "batch", "unit")}
        sums = {name: getattr(self.site, name) for name in _names(SitePrivacySettings)}
        if self.sample_level:
            _one(own["epsilon"], own["noise_multiplier"], "privacy", self.mode)
        else:
            _none(own, "privacy", self.mode, "privacy.site." if self.mode == "site" else "")
        if self.site_level:
            _one(sums["epsilon"], sums["noise_multiplier"], "privacy.site", self.mode)
        else:
            _none(sums, "privacy.site", self.mode, "privacy." if self.mode == "sample" else "")
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


def _names(kind: type) -> list[str]:
    return [item.name for item in dataclasses.fields(kind)]


def _one(epsilon: float | None, noise: float | None, where: str, mode: str) -> None:
    """Exactly one of target and noise is given."""
    if (epsilon is None) == (noise is None):
        raise ConfigError(
            f"{where}.epsilon is {epsilon} and {where}.noise_multiplier is {noise} with privacy={mode}",
            allowed="one of them",
            next_step=f"{where}.epsilon=8, or {where}.epsilon=null {where}.noise_multiplier=1.1",
        )


def _none(given: dict[str, Any], where: str, mode: str, instead: str) -> None:
    """Nothing is set that this mode does not have."""
    for name, value in given.items():
        if value is None:
            continue
        if instead and name not in _names(SitePrivacySettings if instead.endswith("site.") else PrivacySettings):
            raise ConfigError(f"{where}.{name} is {value} with privacy={mode}", allowed="privacy=sample or both")
        if instead:
            raise ConfigError(
                f"{where}.{name} is {value} with privacy={mode}",
                allowed=f"{instead}{name}, or privacy=both, which has two claims",
                next_step=f"fedsite launch privacy={mode} {instead}{name}={value}",
            )
        if name == "epsilon":
            other = "site protection=secagg" if where.endswith("site") else "sample"
            raise ConfigError(
                f"{where}.epsilon is {value} with privacy=none",
                allowed="an epsilon with privacy=sample, site or both",
                next_step=f"fedsite launch privacy={other} {where}.epsilon={value:g}",
            )
