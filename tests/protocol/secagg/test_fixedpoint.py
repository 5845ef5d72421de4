"""Fixed point: the sum never wraps, and its error stays below the stated bound."""

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
