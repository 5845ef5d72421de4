"""Fixed point: the sum never wraps, and its error stays below the stated bound."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol.errors import ConfigError, IntegrityError
from fedsite.protocol.secagg import fixedpoint
from fedsite.protocol.secagg.fixedpoint import Field


def test_a_scale_by_hand() -> None:
    assert fixedpoint.scale(1.0, 1) == 2**31 - 2
    assert fixedpoint.scale(2.0, 4) == (536870911 - 1) / 2


@given(st.integers(1, 2000), st.floats(1e-6, 1e6))
def test_the_largest_sum_does_not_wrap(sites: int, bound: float) -> None:
    step = fixedpoint.scale(bound, sites)
    largest = fixedpoint.quantize(np.array([bound, -bound]), bound, step)
    assert np.abs(largest * sites).max() <= 2**31 - 1
    total = fixedpoint.to_ring(largest * sites)
    assert np.array_equal(fixedpoint.from_ring(total), largest * sites)


@given(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=20))
def test_the_error_of_a_sum_is_half_a_step_a_site(values: list[float]) -> None:
    step = fixedpoint.scale(1.0, len(values))
    total = sum(int(fixedpoint.quantize(np.array([value]), 1.0, step)[0]) for value in values)
    assert abs(total / step - sum(values)) <= len(values) * (0.5 / step + 1e-15)


def test_what_is_too_large_or_no_number_is_clipped() -> None:
    found = fixedpoint.quantize(np.array([5.0, -5.0, np.nan, np.inf, -np.inf]), 2.0, 10.0)
    assert found.tolist() == [20, -20, 0, 20, -20]


@pytest.mark.parametrize(("examples", "weight"), [(65536, 1.0), (1, 2**-16), (0, 2**-16), (32768, 0.5), (10**9, 1.0)])
def test_weights(examples: int, weight: float) -> None:
    assert fixedpoint.weight_of(examples, 65536) == weight


def test_fields_come_back_as_their_sums() -> None:
    fields = (Field(name="delta", shape=(2, 1), bound=1.0, weighted=True), Field(name="weight", shape=(1,), bound=1.0))
    scales = {field.name: fixedpoint.scale(field.bound, 2) for field in fields}
    sites = [({"delta": np.array([[0.5], [-1.0]]), "weight": np.array([0.25])}, 0.25),
             ({"delta": np.array([[1.0], [1.0]]), "weight": np.array([1.0])}, 1.0)]  # fmt: skip
    total = sum(fixedpoint.encode(fields, values, scales, sites=len(sites), weight=weight) for values, weight in sites)
    found = fixedpoint.decode(fields, total, scales, sites=len(sites))
    np.testing.assert_allclose(found["delta"], [[1.125], [0.75]], atol=1e-8)
    np.testing.assert_allclose(found["weight"], [1.25], atol=1e-8)


def test_an_array_of_another_shape_is_refused() -> None:
    field = Field(name="x", shape=(2,), bound=1.0)
    for values in ({}, {"x": np.zeros(3)}):
        with pytest.raises(IntegrityError, match="x is"):
            fixedpoint.encode([field], values, {"x": 1.0}, sites=1, weight=1.0)
    with pytest.raises(IntegrityError, match="sum"):
        fixedpoint.decode([field], np.zeros(3, np.int64), {"x": 1.0}, sites=1)


@pytest.mark.parametrize(("bound", "sites"), [(0.0, 3), (float("inf"), 3), (1.0, 0), (1.0, 1 << 21)])
def test_impossible_scales_are_refused(bound: float, sites: int) -> None:
    with pytest.raises(ConfigError):
        fixedpoint.scale(bound, sites)


def test_a_wide_field_by_hand() -> None:
    """Two sites leave 30 low bits; 5/4 in steps of 1 is a high word of 1 and a quarter of 2^30, −5/4 is −2 and 3/4."""
    field = Field(name="x", shape=(2,), bound=8.0, wide=True)
    assert (fixedpoint.low_bits(2), fixedpoint.low_bits(3), fixedpoint.low_bits(1)) == (30, 29, 31)
    found = fixedpoint.encode([field], {"x": np.array([1.25, -1.25])}, {"x": 1.0}, sites=2, weight=1.0)
    assert found.tolist() == [1, -2, 1 << 28, 3 << 28]
    assert fixedpoint.decode([field], found, {"x": 1.0}, sites=2)["x"].tolist() == [1.25, -1.25]
    assert fixedpoint.decode([field], found + found, {"x": 1.0}, sites=2)["x"].tolist() == [2.5, -2.5]


@given(st.integers(1, 1000), st.floats(1e-3, 1e6), st.data())
def test_the_error_of_a_wide_sum_is_half_a_small_step_a_site(room: int, bound: float, data: st.DataObject) -> None:
    """Through the ring; a step is 1 / (scale · 2^bits), and float64 itself adds an ulp or so of every value."""
    values = data.draw(st.lists(st.floats(-bound, bound), min_size=1, max_size=min(room, 12)))
    field, scales = Field(name="x", shape=(1,), bound=bound, wide=True), {"x": fixedpoint.scale(bound, room)}
    total = np.zeros(2, np.uint32)
    for value in values:
        words = fixedpoint.encode([field], {"x": np.array([value])}, scales, sites=room, weight=1.0)
        total += fixedpoint.to_ring(words)
    found = fixedpoint.decode([field], fixedpoint.from_ring(total), scales, sites=room)["x"][0]
    step = 1.0 / (scales["x"] * 2.0 ** fixedpoint.low_bits(room))
    rounding = 4 * 2.0**-53 * bound * len(values)
    assert abs(found - math.fsum(values)) <= len(values) * 0.5 * step + rounding


@given(st.integers(1, 1 << 20), st.floats(1e-6, 1e9), st.sampled_from([1.0, -1.0]))
def test_no_word_of_the_largest_wide_sum_wraps(sites: int, bound: float, sign: float) -> None:
    field, scales = Field(name="x", shape=(1,), bound=bound, wide=True), {"x": fixedpoint.scale(bound, sites)}
    words = fixedpoint.encode([field], {"x": np.array([sign * bound])}, scales, sites=sites, weight=1.0)
    largest = sites * np.array([words[0], (1 << fixedpoint.low_bits(sites)) - 1])  # no low word is larger
    assert np.array_equal(fixedpoint.from_ring(fixedpoint.to_ring(largest)), largest)
    found = fixedpoint.decode([field], sites * words, scales, sites=sites)["x"][0]
    assert found == pytest.approx(sign * sites * bound, rel=1e-9)


def test_a_wide_field_keeps_small_values_under_a_large_bound() -> None:
    """1/3 under a bound of 10^5 and 1,000 sites: 21 steps a unit would make it 0.33; a low word makes it exact."""
    narrow = Field(name="x", shape=(1,), bound=1e5)
    for field, error in ((narrow, 1e-2), (replace(narrow, wide=True), 1e-8)):
        scales = {"x": fixedpoint.scale(1e5, 1000)}
        words = fixedpoint.encode([field], {"x": np.array([1 / 3])}, scales, sites=1000, weight=1.0)
        found = fixedpoint.decode([field], 1000 * words, scales, sites=1000)["x"][0] / 1000
        assert abs(found - 1 / 3) < error
