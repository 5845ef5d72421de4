"""ε of noise in a sum, against the reference figures and by hand; rounding that keeps its norm."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.privacy import distributed
from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.sampling import SeededSource


@pytest.mark.parametrize(("variance", "epsilon"), [(4, 2.79645), (16, 1.18562), (100, 0.43238)])
def test_scalar_skellam(variance: float, epsilon: float) -> None:
    found = distributed.sum_epsilon("skellam", variance=variance, norm=1, dimensions=1, rounds=1, delta=1e-6)
    assert found == pytest.approx(epsilon, abs=1e-3)


@pytest.mark.parametrize(("rounds", "epsilon"), [(1, 5.22541), (100, 112.5286)])
def test_vector_skellam(rounds: int, epsilon: float) -> None:
    norm = distributed.rounded_norm(1.0, 2.0**14, 10**6)
    found = distributed.sum_epsilon(
        "skellam", variance=2.0**28, norm=norm, dimensions=10**6, rounds=rounds, delta=1e-6
    )
    assert found == pytest.approx(epsilon, abs=1e-3)


@pytest.mark.parametrize(("sigma", "exact"), [(1, 4.49959), (4, 1.06349), (10, 0.39679)])
def test_scalar_discrete_gaussian_is_above_the_exact_value(sigma: float, exact: float) -> None:
    found = distributed.sum_epsilon(
        "discrete-gaussian", variance=sigma**2, norm=1, dimensions=1, rounds=1, delta=1e-6
    )
    assert exact <= found <= 1.2 * exact


def test_skellam_is_little_above_gaussian() -> None:
    """With much noise the bound is the Gaussian's a·Δ²/2μ and next to nothing."""
    order, variance = 8, 1e6
    assert distributed.skellam_divergence(order, variance, 1.0, 1.0) == pytest.approx(order / (2 * variance), rel=1e-5)


def test_parts_that_are_no_discrete_gaussian_together_cost_more() -> None:
    def epsilon(parts: int) -> float:
        return distributed.sum_epsilon(
            "discrete-gaussian", variance=4.0, norm=1, dimensions=10, rounds=1, delta=1e-6, parts=parts
        )

    assert epsilon(1) < epsilon(4) < epsilon(8)


def test_what_the_tables_are_off_by_is_charged() -> None:
    def epsilon(distance: float) -> float:
        return distributed.sum_epsilon(
            "skellam", variance=16, norm=1, dimensions=1, rounds=1, delta=1e-6, distance=distance
        )

    assert epsilon(0.0) < epsilon(1e-8)
    assert epsilon(1e-30) == pytest.approx(epsilon(0.0), rel=1e-8)
    with pytest.raises(PrivacyError, match="delta"):
        epsilon(1e-3)


def test_rounded_norm_by_hand() -> None:
    """d = 1, sC = 1: √(1 + 1/4 + 1·2) = 1.803 against 1 + 1 = 2."""
    assert distributed.rounded_norm(1.0, 1.0, 1) == pytest.approx(math.sqrt(3.25))
    assert distributed.rounded_norm(1.0, 1e6, 4) <= 1e6 + 2


@given(st.integers(1, 200), st.floats(1.0, 1e4), st.integers(0, 2**32))
def test_rounding_keeps_its_norm_and_moves_no_value_by_a_step(count: int, scale: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=count)
    values *= scale / np.linalg.norm(values)
    norm = distributed.rounded_norm(1.0, scale, count)
    found = distributed.round_conditionally(values, norm, SeededSource(seed))
    assert np.linalg.norm(found) <= norm
    assert np.abs(found - values).max() < 1.0


def test_rounding_is_unbiased() -> None:
    values = np.full(4096, 0.25)
    norm = distributed.rounded_norm(0.25 * 64, 1.0, 4096)
    found = distributed.round_conditionally(values, norm, SeededSource(1))
    assert found.mean() == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 4096))


def test_a_vector_that_was_not_clipped_is_refused() -> None:
    with pytest.raises(PrivacyError, match="longer"):
        distributed.round_conditionally(np.full(4, 10.0), 5.0, SeededSource(0))
