"""The part of a plan that says which noise a run has, and what it claims (docs/privacy.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from fedsite.protocol.errors import DocumentError

SITE: Final = "site"  # the unit of noise in sums
SMALL_NOISES: Final = ("statistics_noise", "evaluation_noise", "calibration_noise")


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePrivacyPlan:
    """Noise in the sum over the sites: the unit is a whole site, its update clipped as one vector.

    Neighbouring inputs differ in one site's values, which are zero in one of them; who takes part is public. The claim
    holds against everybody who sees what is released, together with `protection.terms.colluding` sites.
    """

    epsilon: float | None = None  # target for the whole run
    delta: float = 1e-5
    adjacency: Literal["zero-out"] = "zero-out"
    clip: float = 1.0  # C, L2 norm of one site's whole update
    noise_multiplier: float = 0.0  # σ of the noise in the sum over `clip`, solved from epsilon when the plan is made
    mechanism: Literal["skellam", "discrete-gaussian"] = "skellam"

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            check_range("epsilon", self.epsilon, 1e-6, 1e6)
        check_range("delta", self.delta, 1e-15, 0.1)
        check_range("clip", self.clip, 1e-9, 1e9)
        check_range("noise_multiplier", self.noise_multiplier, 0.0, 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyMode:
    """Which noise a run has, in a plan and in the settings it is made of."""

    mode: Literal["none", "sample", "site", "both"]

    @property
    def sample_level(self) -> bool:
        """Whether each site noises what it releases by itself."""
        return self.mode in ("sample", "both")

    @property
    def site_level(self) -> bool:
        """Whether every released sum holds noise of all sites."""
        return self.mode in ("site", "both")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPlan(PrivacyMode):
    """Differential privacy, docs/privacy.md: at each site (`sample`), in the sum (`site`), or both. `none` has no ε.

    With `sample` every release of a site is one Gaussian mechanism; a noise multiplier is the noise's standard
    deviation divided by the L2 sensitivity of what it hides, `epsilon` the composition of all of them over the whole
    run. With `site` the multipliers of statistics, evaluation and calibration are those of noise in the sum, a site
    being one unit; with `both` these are not asked. The two are two claims, never one.
    """

    mode: Literal["none", "sample", "site", "both"] = "none"
    unit: Literal["window", "entity"] = "window"  # one record: a window, or all windows of one entity
    adjacency: Literal["add-remove"] = "add-remove"
    epsilon: float | None = None  # target for the whole run
    delta: float = 1e-5
    clip: float = 1.0  # clipping norm of one unit's gradient
    batch: float = 64.0  # divides a step's noised sum: public, because a site's own number of records is private
    noise_multiplier: float = 0.0  # DP-SGD, solved from epsilon when the plan is made
    statistics_noise: float = 0.0  # of the normalisation statistics; 0: schema ranges are used, no data read
    evaluation_noise: float = 0.0  # of one evaluation; 0: no evaluation on private holdouts
    calibration_noise: float = 0.0  # of the int8 calibration histograms; 0: ranges from the weights and schema
    accountant: Literal["prv", "rdp"] = "prv"
    site: SitePrivacyPlan = field(default_factory=SitePrivacyPlan)

    @property
    def units(self) -> tuple[str, ...]:
        """What the run's claims protect, one for each."""
        return ((self.unit,) if self.sample_level else ()) + ((SITE,) if self.site_level else ())

    def claim(self, unit: str) -> PrivacyPlan | SitePrivacyPlan:
        """Where ε and δ of the claim for one of `units` stand."""
        return self.site if unit == SITE else self

    def __post_init__(self) -> None:
        check_range("delta", self.delta, 1e-15, 0.1)
        check_range("clip", self.clip, 1e-9, 1e9)
        check_range("batch", self.batch, 1e-3, 1e9)
        if self.epsilon is not None:
            check_range("epsilon", self.epsilon, 1e-6, 1e6)
        check_range("noise_multiplier", self.noise_multiplier, 0.0, 1e9)
        for name in SMALL_NOISES:
            check_range(name, getattr(self, name), 0.0, 1e9)
            if self.mode == "both" and getattr(self, name) > 0:
                raise DocumentError(
                    f"{name} is {getattr(self, name)} with privacy.mode both",
                    allowed="0: one release would need noise for two claims at once",
                    next_step="privacy=sample or privacy=site, whose statistics, evaluation and calibration have noise",
                )
        if self.sample_level and not self.noise_multiplier > 0:
            raise DocumentError(
                f"noise_multiplier is {self.noise_multiplier}", allowed=f"above 0 when privacy.mode is {self.mode}"
            )
        if self.site_level and not self.site.noise_multiplier > 0:
            raise DocumentError(
                f"site.noise_multiplier is {self.site.noise_multiplier}",
                allowed=f"above 0 when privacy.mode is {self.mode}",
            )


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Check a number of a plan.

    Raises:
        DocumentError: it is outside.
    """
    if not low <= value <= high:
        raise DocumentError(f"{name} is {value}", allowed=f"{low} to {high}")
