"""Fields of a sum by hand, and a phase's values from a sum."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol.errors import IntegrityError
from fedsite.protocol.plan import PrivacyPlan, ProtectionPlan, RoundPlan, SitePrivacyPlan
from fedsite.protocol.secagg import fixedpoint
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.server.rounds.replies import Expected
from fedsite.server.sums import fields
from tests.simulated_fleet import Play, SimulatedFleet

TRAIN = Expected(required={"delta/w": (2,), "weight": (1,), "loss": (1,)}, optional={"evaluation/count": (1,)})
PROTECTION = ProtectionPlan(mode="secagg", sites=4, examples_max=16, bound=8.0)


def plan(privacy: PrivacyPlan | None = None) -> RoundPlan:
    return Play(fleet=SimulatedFleet(), folder=Path(), protection=PROTECTION, privacy=privacy or PrivacyPlan()).plan()


def total(terms: Manifest, sites: list[tuple[float, dict[str, Any]]]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """What the sites send, added up in the ring."""
    sent = [
        fixedpoint.to_ring(fixedpoint.encode(terms.fields, values, terms.scales, sites=terms.sites, weight=weight))
        for weight, values in sites
    ]
    return np.sum(sent, axis=0, dtype=np.uint32)


def test_without_privacy_updates_weigh_their_windows() -> None:
    terms = fields.manifest(plan(), "train", TRAIN)
    found = [(item.name, item.bound, item.weighted, item.wide) for item in terms.fields]
    assert found == [
        ("delta/w", 8.0, True, False),
        ("evaluation/count", 2.0**30, False, True),
        ("loss", 1e4, True, True),
        ("weight", 1.0, True, False),
    ]
    assert (terms.examples_max, terms.sites, terms.noise) == (16, 4, ())


def test_with_privacy_every_site_weighs_one() -> None:
    privacy = PrivacyPlan(mode="sample", noise_multiplier=1.0)
    terms = fields.manifest(plan(privacy), "train", Expected(required={"delta/w": (2,), "weight": (1,)}, weight=1.0))
    assert [(item.name, item.weighted) for item in terms.fields] == [("delta/w", False)]
    assert terms.examples_max == 0
    sites: list[tuple[float, dict[str, Any]]] = [
        (1.0, {"delta/w": np.array(pair)}) for pair in ([1.0, 2.0], [3.0, -4.0])
    ]
    found = fields.decode(plan(privacy), terms, total(terms, sites), 2)
    np.testing.assert_allclose(found["delta/w"], [2.0, -1.0], atol=1e-6)
    assert found["weight"] == [2.0]


def test_noise_in_the_sum_is_that_of_the_plan() -> None:
    privacy = PrivacyPlan(mode="site", site=SitePrivacyPlan(noise_multiplier=0.5, clip=2.0))
    terms = fields.manifest(plan(privacy), "train", Expected(required={"delta/w": (2,), "weight": (1,)}, weight=1.0))
    (part,) = terms.noise
    assert (part.prefix, part.clip, part.multiplier) == ("delta/", 2.0, 0.5)
    assert [item.bound for item in terms.fields] == [2.0]


@pytest.mark.parametrize(
    ("purpose", "name", "wide"),
    [
        ("statistics", "statistics/sum", True),
        ("evaluate", "parity/count", True),
        ("calibrate", "calibration/positive", False),
    ],
)
def test_sums_that_nothing_weighs(purpose: Any, name: str, wide: bool) -> None:
    terms = fields.manifest(plan(), purpose, Expected(required={name: (2, 3)}))
    (item,) = terms.fields
    # Four sites: 2^31 / 4 steps, times 2^29 of the low word. A quarter of a count, a millionth of a window's part.
    assert (item.shape, item.bound, item.weighted, item.wide) == ((2, 3), 2.0 ** (30 if wide else 26), False, wide)
    assert terms.examples_max == 0


@pytest.mark.parametrize("sites", [3, 64, 100, 1000, 100_000])
def test_a_site_with_very_many_windows_sends_sums_that_fit_each_other(sites: int) -> None:
    made = dataclasses.replace(plan(), protection=dataclasses.replace(PROTECTION, sites=sites, examples_max=1 << 16))
    expected = Expected(required={"statistics/count": (1,), "statistics/sum": (1,)})
    terms = fields.manifest(made, "statistics", expected)
    windows = 3e6 if sites < 1000 else 6e4
    sent: list[tuple[float, dict[str, Any]]] = [
        (1.0, {"statistics/count": np.array([windows]), "statistics/sum": np.array([windows / 3])})
    ] * min(sites, 10)
    found = fields.decode(made, terms, total(terms, sent), min(sites, 10))
    np.testing.assert_allclose(found["statistics/count"], windows * min(sites, 10), rtol=1e-6)
    np.testing.assert_allclose(found["statistics/sum"], windows / 3 * min(sites, 10), rtol=1e-6)


@given(sites=st.lists(st.tuples(st.integers(1, 16), st.floats(-8, 8), st.floats(-100, 100)), min_size=1, max_size=4))
def test_a_weighted_mean_is_the_sealed_one_up_to_the_grid(sites: list[tuple[int, float, float]]) -> None:
    made = plan()
    terms = fields.manifest(made, "train", TRAIN)
    sent: list[tuple[float, dict[str, Any]]] = [
        (
            fixedpoint.weight_of(windows, 16),
            {
                "delta/w": np.full(2, delta),
                "loss": np.array([loss]),
                "weight": np.ones(1),
                "evaluation/count": np.array([float(windows)]),
            },
        )
        for windows, delta, loss in sites
    ]
    found = fields.decode(made, terms, total(terms, sent), len(sites))
    weights = [windows for windows, _, _ in sites]
    step = len(sites) * 16 / (terms.scales["delta/w"] * sum(weights))
    np.testing.assert_allclose(
        found["delta/w"], np.average([item[1] for item in sites], weights=weights), atol=2 * step
    )
    np.testing.assert_allclose(found["loss"], np.average([item[2] for item in sites], weights=weights), atol=1e-4)
    np.testing.assert_allclose(found["weight"], [sum(weights)], rtol=1e-6)
    np.testing.assert_allclose(found["evaluation/count"], [sum(weights)], rtol=1e-6)


@pytest.mark.parametrize("weight", [0.0, -0.5, 3.9])
def test_weights_that_cannot_be_end_the_sum(weight: float) -> None:
    terms = fields.manifest(plan(), "train", TRAIN)
    words = np.zeros(terms.words, np.int64)
    words[-1] = round(weight * terms.scales["weight"])
    with pytest.raises(IntegrityError, match="weights that add up to"):
        fields.decode(plan(), terms, fixedpoint.to_ring(words), 3)
