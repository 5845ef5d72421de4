"""Noise in the sums over the sites (`privacy=site`): how long one site's part may be, and what the sums cost it.

One privacy unit is a site: all of its windows together move a sum by no more than one unit of `privacy=sample` does,
and its whole update is one vector. Both ends compute this from the plan: the server for the manifest, a site to check
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from fedsite.models import calibration, metrics
from fedsite.privacy.accounting import Spend
from fedsite.privacy.distributed import SumRelease, equivalent_multiplier, rounded_norm
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.messages import DELTA, Purpose
from fedsite.protocol.plan import PrivacyPlan, ProtectionPlan, RoundPlan
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Noise
from fedsite.telemetry.statistics import unit_bound
from fedsite.telemetry.task import Task, read_task

WORDS: Final = (
    1 << 16
)  # statistics, evaluations and histograms are charged as if they had so many values, and have less
PREFIXES: Final[dict[str, Purpose]] = {
    DELTA: "train",
    "statistics/": "statistics",
    "evaluation/": "evaluate",
    "calibration/": "calibrate",
}


def noised(plan: RoundPlan, fields: Sequence[Field]) -> tuple[tuple[Field, ...], tuple[Noise, ...]]:
    """The fields of a sum, and the noise over them; just the fields where the plan has no noise in sums.

    Raises:
        ConfigError: a field that this plan has no noise for.
    """
    if not plan.privacy.site_level:
        return tuple(fields), ()
    task = read_task(plan.task)
    parts = tuple(
        Noise(
            prefix=prefix,
            mechanism=plan.privacy.site.mechanism,
            clip=_clip(plan.privacy, task, prefix, own),
            multiplier=multiplier(plan.privacy, PREFIXES[prefix]),
        )
        for prefix in PREFIXES
        if (own := [field for field in fields if field.name.startswith(prefix)])
    )
    clips = {part.prefix: part.clip for part in parts}
    unknown = [field.name for field in fields if _prefix(field) not in clips]
    if unknown:
        raise ConfigError(
            f"value {unknown[0]} in a sum with privacy {plan.privacy.mode}", allowed=", ".join(sorted(PREFIXES))
        )
    bare = tuple(replace(field, bound=clips[_prefix(field)], weighted=False, wide=False) for field in fields)
    return bare, parts


def multiplier(privacy: PrivacyPlan, purpose: Purpose) -> float:
    """σ of the noise in the sum over what one site can move it by; 0 where this is not asked."""
    return {
        "train": privacy.site.noise_multiplier,
        "statistics": privacy.statistics_noise,
        "evaluate": privacy.evaluation_noise,
        "calibrate": privacy.calibration_noise,
    }[purpose]


def dimensions(plan: RoundPlan, prefix: str) -> int:
    """How many values a site charges for: what comes has at most so many, or is refused."""
    return plan.model.parameters if prefix == DELTA else WORDS


def spend(plan: RoundPlan, purpose: Purpose, *, count: int = 1) -> Spend:
    """What `count` sums of one purpose cost a site: as Gaussian mechanisms that cost at least as much.

    Raises:
        PrivacyError: nothing this accountant can carry.
    """
    words = plan.model.parameters if purpose == "train" else WORDS
    noise = multiplier(plan.privacy, purpose)
    return Spend(noise_multiplier=equivalent(plan.privacy, plan.protection, noise, words), steps=count)


def equivalent(privacy: PrivacyPlan, protection: ProtectionPlan, noise: float, words: int) -> float:
    """The Gaussian noise multiplier that noise of this size in a sum of `words` values amounts to.

    Raises:
        DocumentError: noise too small for the grid.
        PrivacyError: too many values and sites for this accountant.
    """
    honest = protection.terms.honest
    # The clip is the unit: only its ratio to the noise and to the grid's step count.
    grid = Noise(prefix="", mechanism=privacy.site.mechanism, clip=1.0, multiplier=noise).grid(protection.sites, honest)
    return equivalent_multiplier(
        SumRelease(
            mechanism=privacy.site.mechanism,
            norm=rounded_norm(1.0, grid.scale, words),
            variance=grid.variance,
            honest=honest,
            dimensions=words,
        )
    )


def _prefix(field: Field) -> str:
    return field.name.partition("/")[0] + "/"


def _clip(privacy: PrivacyPlan, task: Task, prefix: str, fields: Sequence[Field]) -> float:
    """The L2 norm that a site's part is clipped to: of its update as a whole, or one unit's share of the sums."""
    if prefix == DELTA:
        return privacy.site.clip
    if prefix == "statistics/":
        return unit_bound(len(task.feature_names))
    if prefix == "evaluation/":
        return metrics.sensitivity(task.metric)
    rows = {field.name: field.shape for field in fields}
    shape = rows.get("calibration/positive", ())
    if len(shape) != 2:
        raise ConfigError("calibration without its counts", allowed="calibration/positive of shape [tensor, bin]")
    return calibration.sensitivity(shape[0], scores="calibration/score" in rows)
