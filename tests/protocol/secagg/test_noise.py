"""Noise in a manifest: the grid by hand, and what a manifest with noise must look like."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.privacy import integer_noise
from fedsite.protocol.errors import DocumentError
from fedsite.protocol.secagg import manifest as module
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest, Noise, Terms

DELTA = Field(name="delta/w", shape=(3, 2), bound=1.5)
NOISE = Noise(prefix="delta/", clip=1.5, multiplier=2.0)


def manifest(*fields: Field, noise: tuple[Noise, ...] = (NOISE,), **changes: object) -> Manifest:
    return Manifest(purpose="train", plan_hash="ab" * 32, sites=8, fields=fields or (DELTA,), noise=noise, **changes)


def test_each_site_adds_its_part() -> None:
    """σ of the sum is 2 · 1.5 = 3; four honest sites add 1.5 each. 2^14 steps of that: 10,922.67 steps a unit."""
    grid = NOISE.grid(8, 4)
    assert grid.scale == pytest.approx(2**14 / 1.5)
    assert grid.variance == pytest.approx(2.0**28)
    assert math.sqrt(4 * grid.variance) / grid.scale == pytest.approx(3.0)


def test_little_noise_leaves_room_for_the_values() -> None:
    """1e-6 over the clip: the ring is the limit, (2^31 − 1) / (8 · 1.5 + 10 σ) steps a unit."""
    quiet = dataclasses.replace(NOISE, multiplier=1e-6)
    everybody = 1e-6 * 1.5 * math.sqrt(8 / 4)
    assert quiet.grid(8, 4).scale == pytest.approx((2**31 - 1) / (12 + 10 * everybody))
    with pytest.raises(DocumentError, match="grid steps"):
        dataclasses.replace(NOISE, multiplier=1e-9).grid(8, 4)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e4), st.integers(2, 1000), st.data())
def test_no_sum_wraps_and_every_table_can_be_made(
    clip: float, multiplier: float, sites: int, data: st.DataObject
) -> None:
    honest = data.draw(st.integers(2, sites))
    grid = Noise(prefix="x/", clip=clip, multiplier=multiplier).grid(sites, honest)
    sigma = math.sqrt(sites * grid.variance)
    assert sites * clip * grid.scale + 10 * sigma < 2.0**31 * (1 + 1e-9)
    assert integer_noise.SIGMA_MIN <= math.sqrt(grid.variance) <= integer_noise.SIGMA_MAX


def test_tables_of_the_largest_noise_are_quick_to_make() -> None:
    assert module.NOISE_STEPS <= integer_noise.SIGMA_MAX
    assert module.NOISE_STEPS_MIN >= integer_noise.SIGMA_MIN


def test_all_coordinates_of_one_part_have_one_scale() -> None:
    other = Field(name="delta/b", shape=(2,), bound=1.5)
    judged = Field(name="evaluation/count", shape=(1,), bound=2.0)
    both = manifest(DELTA, other, judged, noise=(NOISE, Noise(prefix="evaluation/", clip=2.0, multiplier=5.0)))
    assert both.scales["delta/w"] == both.scales["delta/b"] == NOISE.grid(8, 3).scale
    assert both.scales["evaluation/count"] != both.scales["delta/w"]
    assert Manifest.parse(both.encode()) == both


def test_noise_is_shared_among_those_who_do_not_collude() -> None:
    told = manifest(terms=Terms(min_cohort=6, min_survivors=5, colluding=2))
    assert told.grid(NOISE) == NOISE.grid(8, 3)


@pytest.mark.parametrize(
    "fields",
    [
        (dataclasses.replace(DELTA, bound=4.0),),
        (dataclasses.replace(DELTA, wide=True),),
        (DELTA, Field(name="loss", shape=(1,), bound=1.0)),
    ],
)
def test_a_field_that_noise_does_not_fit_is_refused(fields: tuple[Field, ...]) -> None:
    with pytest.raises(DocumentError, match="noised sum"):
        manifest(*fields)


def test_weighted_fields_tell_how_many_windows_a_site_has() -> None:
    with pytest.raises(DocumentError, match="noised sum"):
        manifest(dataclasses.replace(DELTA, weighted=True), examples_max=10)


def test_noise_over_nothing_or_twice_is_refused() -> None:
    with pytest.raises(DocumentError, match="evaluation/"):
        manifest(noise=(NOISE, Noise(prefix="evaluation/", clip=1.0, multiplier=1.0)))
    with pytest.raises(DocumentError, match="under 2 parts"):
        manifest(noise=(NOISE, NOISE))


@pytest.mark.parametrize("change", [{"clip": 0.0}, {"multiplier": -1.0}, {"multiplier": math.inf}])
def test_noise_is_positive(change: dict[str, float]) -> None:
    with pytest.raises(DocumentError, match="delta/"):
        dataclasses.replace(NOISE, **change)
