"""ε against published and independently computed figures, and the laws any accountant must obey."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.privacy import accounting
from fedsite.privacy.accounting import Spend, epsilon, group_epsilon, merged, solve_noise_multiplier
from fedsite.privacy.errors import PrivacyError

# σ, q, steps, δ, RDP (Opacus 1.6.0 = dp-accounting 0.6.0), PRV (Opacus), PLD (dp-accounting)
REFERENCE = [
    (1.0, 0.01, 1000, 1e-5, 2.10137, 1.83837, 1.82824),
    (1.1, 256 / 60000, 14062, 1e-5, 2.59656, 2.39174, 2.38169),
    (0.8, 0.02, 500, 1e-6, 6.16455, 5.45064, 5.44031),
    (2.0, 0.1, 200, 1e-5, 3.67975, 3.36986, 3.35966),
    (4.0, 1.0, 100, 1e-6, 15.32798, 14.46129, 14.45078),
    (0.5, 0.001, 10000, 1e-6, 7.56966, 6.35661, 6.34614),
    (1.0, 1.0, 1, 1e-5, 4.72851, 4.38741, 4.37718),
]


def spend(sigma: float, q: float = 1.0, steps: int = 1) -> Spend:
    return Spend(noise_multiplier=sigma, sampling_rate=q, steps=steps)


@pytest.mark.parametrize(("sigma", "q", "steps", "delta", "rdp", "prv", "pld"), REFERENCE)
def test_reference_table(sigma, q, steps, delta, rdp, prv, pld):
    spends = [spend(sigma, q, steps)]
    assert epsilon(spends, delta, "rdp") == pytest.approx(rdp, abs=1e-3)
    claim = epsilon(spends, delta)
    assert claim == pytest.approx(prv, abs=1e-3)
    assert pld <= claim <= 1.15 * pld


def test_nothing_released_costs_nothing():
    assert epsilon([], 1e-5) == 0.0
    assert epsilon([spend(1.0, 1.0, 0)], 1e-5) == 0.0
    assert group_epsilon([], 1e-5, 3) == 0.0


def test_equal_mechanisms_are_counted_together_whatever_their_order():
    a, b = spend(1.0, 0.1, 3), spend(2.0)
    assert merged([a, b, a]) == merged([b, spend(1.0, 0.1, 6)]) == (spend(1.0, 0.1, 6), b)


def test_splitting_a_run_changes_nothing():
    assert epsilon([spend(1.0, 0.01, 400), spend(1.0, 0.01, 600)], 1e-5) == epsilon([spend(1.0, 0.01, 1000)], 1e-5)


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_different_mechanisms_compose(accountant):
    """Two Gaussians are one with the noise 1/sqrt(1/σ1² + 1/σ2²)."""
    together = epsilon([spend(3.0), spend(4.0)], 1e-5, accountant)
    assert together == pytest.approx(epsilon([spend(2.4)], 1e-5, accountant), rel=0.02)


@settings(deadline=None, max_examples=25)
@given(
    st.floats(0.6, 20.0),
    st.floats(0.001, 1.0),
    st.integers(1, 300),
    st.floats(1.05, 3.0),
    st.sampled_from([1e-6, 1e-4]),
)
def test_more_noise_less_sampling_fewer_steps_cost_less(sigma, q, steps, factor, delta):
    here = epsilon([spend(sigma, q, steps)], delta, "rdp")
    assert epsilon([spend(sigma * factor, q, steps)], delta, "rdp") <= here
    assert epsilon([spend(sigma, q / factor, steps)], delta, "rdp") <= here + 1e-12
    assert epsilon([spend(sigma, q, steps + 7)], delta, "rdp") >= here
    assert epsilon([spend(sigma, q, steps)], delta * 10, "rdp") <= here


def test_a_claim_beyond_the_numerical_accountant_is_the_renyi_bound():
    tiny = [spend(0.05, 1.0, 10)]
    assert epsilon(tiny, 1e-5, "prv") == epsilon(tiny, 1e-5, "rdp") > accounting.PRV_LIMIT


def test_a_failing_numerical_accountant_is_replaced_never_trusted(monkeypatch):
    spends = [spend(1.2345, 0.05, 17)]
    for broken in (float("nan"), float("inf"), -1.0):
        accounting._epsilon.cache_clear()
        monkeypatch.setattr(accounting, "_prv", lambda *_, value=broken: value)
        assert epsilon(spends, 1e-5) == epsilon(spends, 1e-5, "rdp")
    accounting._epsilon.cache_clear()


@pytest.mark.parametrize(("target", "q", "steps"), [(8.0, 0.1, 100), (2.0, 0.1, 100), (1.0, 1.0, 20)])
def test_solved_noise_meets_its_target_and_wastes_little(target, q, steps):
    others = (spend(20.0), spend(10.0, 1.0, 2))
    sigma = solve_noise_multiplier(target, 1e-5, q, steps, others)
    assert epsilon([spend(sigma, q, steps), *others], 1e-5) <= target
    assert epsilon([spend(0.99 * sigma, q, steps), *others], 1e-5) > target * 0.999


def test_a_target_already_spent_is_refused_with_the_remedy():
    with pytest.raises(PrivacyError) as caught:
        solve_noise_multiplier(0.1, 1e-5, 0.1, 10, (spend(1.0),))
    assert "alone cost" in caught.value.found
    assert "privacy.epsilon" in caught.value.next_step


def test_a_group_of_one_is_a_single_record():
    for parts in ([spend(1.0, 0.1, 50)], [spend(2.0, 1.0, 3)]):
        assert group_epsilon(parts, 1e-5, 1) == pytest.approx(epsilon(parts, 1e-5, "rdp"), rel=0.03)


def test_a_group_without_sampling_is_a_larger_sensitivity():
    assert group_epsilon([spend(6.0)], 1e-5, 3) == pytest.approx(epsilon([spend(2.0)], 1e-5, "rdp"), rel=0.03)


def test_group_bounds_grow_with_the_group_and_beat_the_whole_group_joining_at_once():
    parts = [spend(2.0, 0.05, 100)]
    found = [group_epsilon(parts, 1e-5, size) for size in (1, 2, 5, 10)]
    assert found == sorted(found)
    at_once = epsilon([spend(2.0 / 10, 1 - 0.95**10, 100)], 1e-5, "rdp")
    assert epsilon(parts, 1e-5, "rdp") < found[-1] < at_once


@pytest.mark.parametrize(
    "arguments",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": float("nan")},
        {"noise_multiplier": 1.0, "sampling_rate": 0.0},
        {"noise_multiplier": 1.0, "sampling_rate": 1.1},
        {"noise_multiplier": 1.0, "steps": -1},
    ],
)
def test_impossible_spends_are_refused(arguments):
    with pytest.raises(PrivacyError):
        Spend(**arguments)


def test_impossible_questions_are_refused():
    with pytest.raises(PrivacyError, match="delta"):
        epsilon([spend(1.0)], 0.0)
    with pytest.raises(PrivacyError, match="accountant"):
        epsilon([spend(1.0)], 1e-5, "moments")  # type: ignore[arg-type]
    with pytest.raises(PrivacyError, match="group"):
        group_epsilon([spend(1.0)], 1e-5, 0)


def test_too_many_steps_for_the_fine_grid_get_the_renyi_bound_instead_of_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def endless(spends: object, delta: float) -> float:
        raise AssertionError(f"PRV for {spends} at {delta}")

    monkeypatch.setattr(accounting, "_prv", endless)
    many = [spend(2000.0, 0.5, 10_000_000), spend(3000.0, 0.5, 10_000_000)]
    assert epsilon(many, 1e-5) == epsilon(many, 1e-5, "rdp") > 0.0
