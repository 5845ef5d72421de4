"""Noise in sums: what each kind of value is clipped to, and its price, against the bounds themselves."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from fedsite.models import calibration, metrics, spends, sum_noise
from fedsite.privacy.distributed import SumRelease, equivalent_epsilon, rounded_norm, sums_epsilon
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import (
    LocalPlan,
    ModelPlan,
    PrivacyPlan,
    ProtectionPlan,
    RoundPlan,
    RoundsPlan,
    SitePrivacyPlan,
)
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest, Terms
from fedsite.telemetry.task import load_task

TASK = load_task("pump")
TERMS = Terms(min_cohort=6, min_survivors=5, colluding=1)


def plan(**changes: Any) -> RoundPlan:
    site = SitePrivacyPlan(noise_multiplier=3.0, clip=0.5)
    noises = {"statistics_noise": 10.0, "evaluation_noise": 20.0, "calibration_noise": 30.0}
    values: dict[str, Any] = {
        "federation": "00",
        "run_id": "r",
        "created": "",
        "task": TASK.document,
        "model": ModelPlan(name="mlp", parameters=500),
        "local": LocalPlan(steps=1, sampling_rate=0.5),
        "privacy": PrivacyPlan(mode="site", site=site, **noises),
        "protection": ProtectionPlan(sites=16, terms=TERMS),
        "rounds": RoundsPlan(count=4),
    }
    return RoundPlan(**(values | changes))


def test_without_noise_in_sums_fields_stay_as_they_are() -> None:
    fields = (Field(name="delta/w", shape=(3,), bound=4.0, weighted=True),)
    assert sum_noise.noised(plan(privacy=PrivacyPlan()), fields) == (fields, ())


def test_each_kind_of_value_has_its_own_clip() -> None:
    fields = [
        Field(name="delta/w", shape=(3,), bound=4.0),
        Field(name="evaluation/count", shape=(1,), bound=65536.0, wide=True),
    ]
    bare, noise = sum_noise.noised(plan(), fields)
    assert [(part.prefix, part.multiplier) for part in noise] == [("delta/", 3.0), ("evaluation/", 20.0)]
    assert [part.clip for part in noise] == [0.5, metrics.sensitivity(TASK.metric)]
    assert [(field.bound, field.wide) for field in bare] == [(part.clip, False) for part in noise]
    Manifest(purpose="train", plan_hash="ab" * 32, sites=16, fields=bare, terms=TERMS, noise=noise)


def test_sums_of_one_site_are_those_of_one_unit() -> None:
    features = len(TASK.feature_names)
    fields = [Field(name=f"statistics/{name}", shape=(features,), bound=1.0, wide=True) for name in ("sum", "square")]
    assert sum_noise.noised(plan(), fields)[1][0].clip == pytest.approx(math.sqrt(1 + features / 4))
    counts = [
        Field(name=f"calibration/{name}", shape=(7, calibration.BINS), bound=1.0) for name in ("negative", "positive")
    ]
    assert sum_noise.noised(plan(), counts)[1][0].clip == pytest.approx(math.sqrt(14))


@pytest.mark.parametrize("name", ["weight", "loss", "parity/count", "windows"])
def test_a_value_without_noise_of_its_own_cannot_go_along(name: str) -> None:
    fields = [Field(name="delta/w", shape=(3,), bound=4.0), Field(name=name, shape=(1,), bound=1.0)]
    with pytest.raises(ConfigError, match=name):
        sum_noise.noised(plan(), fields)


def test_counts_of_no_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match="calibration"):
        sum_noise.noised(plan(), [Field(name="calibration/score", shape=(3,), bound=1.0)])


def test_the_price_is_never_below_the_sums_own_epsilon() -> None:
    """The grid, norm and variance of the real manifests, composed by the bound for Skellam itself."""
    found = plan()
    fields = {
        "train": [Field(name="delta/w", shape=(500,), bound=4.0)],
        "statistics": [Field(name="statistics/sum", shape=(9,), bound=1.0)],
        "evaluate": [Field(name="evaluation/count", shape=(3,), bound=1.0)],
        "calibrate": [Field(name="calibration/positive", shape=(5, calibration.BINS), bound=1.0)],
    }
    counts = {"train": 4, "statistics": 1, "evaluate": 3, "calibrate": 1}
    releases = []
    for purpose, own in fields.items():
        bare, noise = sum_noise.noised(found, own)
        terms = Manifest(purpose=purpose, plan_hash="ab" * 32, sites=16, fields=bare, terms=TERMS, noise=noise)  # type: ignore[arg-type]
        grid = terms.grid(noise[0])
        release = SumRelease(
            mechanism="skellam",
            norm=rounded_norm(noise[0].clip, grid.scale, terms.words),
            variance=grid.variance,
            honest=4,
            dimensions=terms.words,
        )
        assert math.sqrt(4 * grid.variance) / grid.scale == pytest.approx(noise[0].clip * noise[0].multiplier)
        releases.append((release, counts[purpose]))
    exact = sums_epsilon(releases, 1e-5)
    charged = equivalent_epsilon(spends.in_sums(found, dataclasses.replace(spends.whole(found), evaluated=3)), 1e-5)
    assert exact <= charged < 1.02 * exact


def test_more_colluding_sites_need_more_noise_of_each() -> None:
    """The same ε: the multiplier is of what is left without them."""
    alone, helped = plan(), plan(protection=ProtectionPlan(sites=16, terms=Terms(min_cohort=6, min_survivors=5)))
    fields = [Field(name="delta/w", shape=(3,), bound=4.0)]
    noise = sum_noise.noised(alone, fields)[1][0]
    four, five = noise.grid(16, alone.protection.terms.honest), noise.grid(16, helped.protection.terms.honest)
    assert math.sqrt(four.variance) / four.scale == pytest.approx(
        math.sqrt(5 / 4) * math.sqrt(five.variance) / five.scale
    )
