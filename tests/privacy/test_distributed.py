"""ε of noise in a sum, against the reference figures and by hand; rounding that keeps its norm."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from fedsite.privacy import distributed
from fedsite.privacy.accounting import Spend
from fedsite.privacy.distributed import SumRelease
from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.integer_noise import Mechanism
from fedsite.privacy.sampling import SeededSource


def sum_epsilon(
    mechanism: Mechanism, *, variance: float, norm: float, dimensions: int, rounds: int = 1, parts: int = 1
) -> float:
    """ε at δ 1e-6, the noise shared among `parts` sites."""
    one = SumRelease(mechanism=mechanism, norm=norm, variance=variance / parts, honest=parts, dimensions=dimensions)
    return distributed.sums_epsilon([(one, rounds)], 1e-6)


@pytest.mark.parametrize(("variance", "epsilon"), [(4, 2.79645), (16, 1.18562), (100, 0.43238)])
def test_scalar_skellam(variance: float, epsilon: float) -> None:
    found = sum_epsilon("skellam", variance=variance, norm=1, dimensions=1)
    assert found == pytest.approx(epsilon, abs=1e-3)


@pytest.mark.parametrize(("rounds", "epsilon"), [(1, 5.22541), (100, 112.5286)])
def test_vector_skellam(rounds: int, epsilon: float) -> None:
    norm = distributed.rounded_norm(1.0, 2.0**14, 10**6)
    one = SumRelease(mechanism="skellam", norm=norm, variance=2.0**28, dimensions=10**6)
    divergences = {order: rounds * one.divergence(order) for order in distributed.ORDERS}
    assert distributed.from_divergences(divergences, 1e-6) == pytest.approx(epsilon, abs=1e-3)


def test_an_epsilon_that_the_tables_cannot_carry_is_not_claimed() -> None:
    """e^112 times 2^-99 is above any δ."""
    assert sum_epsilon("skellam", variance=2.0**28, norm=2.0**14, dimensions=1) < 10
    with pytest.raises(PrivacyError, match="tables are off"):
        sum_epsilon("skellam", variance=2.0**28, norm=2.0**14, dimensions=1, rounds=100)


@pytest.mark.parametrize(("sigma", "exact"), [(1, 4.49959), (4, 1.06349), (10, 0.39679)])
def test_scalar_discrete_gaussian_is_above_the_exact_value(sigma: float, exact: float) -> None:
    found = sum_epsilon("discrete-gaussian", variance=sigma**2, norm=1, dimensions=1)
    assert exact <= found <= 1.2 * exact


def test_skellam_is_little_above_gaussian() -> None:
    """With much noise the bound is the Gaussian's a·Δ²/2μ and next to nothing."""
    order, variance = 8, 1e6
    assert distributed.skellam_divergence(order, variance, 1.0, 1.0) == pytest.approx(order / (2 * variance), rel=1e-5)


def test_parts_that_are_no_discrete_gaussian_together_cost_more() -> None:
    def epsilon(parts: int) -> float:
        return sum_epsilon("discrete-gaussian", variance=4.0, norm=1, dimensions=10, parts=parts)

    assert epsilon(1) < epsilon(4) < epsilon(8)


def test_what_the_tables_are_off_by_is_charged() -> None:
    """Norm 1 in any number of coordinates costs the same, but for the noise tables of all these coordinates."""

    def epsilon(dimensions: int) -> float:
        return sum_epsilon("skellam", variance=16, norm=1, dimensions=dimensions)

    assert epsilon(1) == pytest.approx(epsilon(10**6), rel=1e-8)
    assert epsilon(1) < epsilon(10**22)
    with pytest.raises(PrivacyError, match="delta 1e-06"):
        epsilon(10**28)


def release(
    mechanism: Mechanism, multiplier: float, dimensions: int, honest: int, length: float = 4096.0
) -> SumRelease:
    """Noise of `multiplier` clipping norms in the sum, the clipping norm being `length` grid steps."""
    return SumRelease(
        mechanism=mechanism,
        norm=distributed.rounded_norm(1.0, length, dimensions),
        variance=(multiplier * length) ** 2 / honest,
        honest=honest,
        dimensions=dimensions,
    )


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["skellam", "discrete-gaussian"]), st.floats(1.0, 40.0), st.integers(1, 10**5),
    st.integers(2, 64), st.integers(1, 100), st.floats(100.0, 1e6),
)  # fmt: skip
def test_the_equivalent_gaussian_costs_at_least_as_much(
    mechanism: Mechanism, multiplier: float, dimensions: int, honest: int, rounds: int, length: float
) -> None:
    sums = release(mechanism, multiplier, dimensions, honest, length)
    found = Spend(noise_multiplier=distributed.equivalent_multiplier(sums), steps=rounds)
    assume(rounds * sums.divergence(2) < 12.0)
    exact = distributed.sums_epsilon([(sums, rounds)], 1e-5)
    assert distributed.equivalent_epsilon([found], 1e-5) >= exact * (1 - 1e-9)
    other = release(mechanism, 2 * multiplier, 100, honest, length)
    both = [found, Spend(noise_multiplier=distributed.equivalent_multiplier(other), steps=3)]
    exact = distributed.sums_epsilon([(sums, rounds), (other, 3)], 1e-5)
    assert distributed.equivalent_epsilon(both, 1e-5) >= exact * (1 - 1e-9)


def test_the_equivalent_is_next_to_the_real_multiplier_where_the_grid_is_fine() -> None:
    found = distributed.equivalent_multiplier(release("skellam", 2.0, 1000, 10, length=1e5))
    assert 1.99 < found < 2.0


def test_the_equivalents_epsilon_is_never_below_the_gaussians_own() -> None:
    """Against the exact trade-off of μ = √(30/25 + 1/400): δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ)."""
    mu = math.sqrt(30 / 5.0**2 + 1 / 20.0**2)
    found = distributed.equivalent_epsilon([Spend(noise_multiplier=5.0, steps=30), Spend(noise_multiplier=20.0)], 1e-5)

    def delta(epsilon: float) -> float:
        return float(stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * stats.norm.cdf(-mu / 2 - epsilon / mu))

    assert delta(found) <= 1e-5 <= delta(found / 1.3)
    assert distributed.equivalent_epsilon([], 1e-5) == 0.0


def test_no_amplification_by_sampling_sites() -> None:
    with pytest.raises(PrivacyError, match="random sample"):
        distributed.equivalent_epsilon([Spend(noise_multiplier=1.0, sampling_rate=0.5)], 1e-5)


def multiplier_of(noise: float, dimensions: int = 1000) -> float:
    return distributed.equivalent_multiplier(release("skellam", noise, dimensions, 3, length=16384 / noise))


@pytest.mark.parametrize("target", [0.5, 2.0, 8.0])
def test_the_noise_meets_its_target_and_is_not_wasted(target: float) -> None:
    others = (Spend(noise_multiplier=60.0),)
    noise = distributed.solve_sum_multiplier(target, 1e-5, multiplier_of, 30, others)
    spends = (Spend(noise_multiplier=multiplier_of(noise), steps=30), *others)
    assert 0.995 * target < distributed.equivalent_epsilon(spends, 1e-5) <= target


def test_a_target_out_of_reach_says_why() -> None:
    with pytest.raises(PrivacyError, match="rounding to the grid"):
        distributed.solve_sum_multiplier(0.001, 1e-5, lambda noise: multiplier_of(noise, 10**7), 100)
    with pytest.raises(PrivacyError, match="alone cost"):
        distributed.solve_sum_multiplier(1.0, 1e-5, multiplier_of, 1, (Spend(noise_multiplier=1.0),))


def test_too_many_coordinates_for_the_allowance_are_refused() -> None:
    with pytest.raises(PrivacyError, match="over 1000 sites"):
        distributed.equivalent_multiplier(release("skellam", 1.0, 10**9, 1000))


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
