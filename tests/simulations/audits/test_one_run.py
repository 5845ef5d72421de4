"""The bound for one training, on figures that are printed in its paper or fit on paper."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.simulations.audits import one_run


def test_a_guess_right_as_often_as_epsilon_allows_proves_nothing() -> None:
    # Appendix D of the paper: ε = ln 3 allows 3 right guesses of 4.
    assert one_run.p_value(100, 100, 75, math.log(3), 0.0) == pytest.approx(0.553, abs=1e-3)
    assert one_run.p_value(1, 1, 1, 0.0, 0.0) == pytest.approx(0.5)


def test_delta_is_charged_for_every_canary() -> None:
    # One guess, right: B is 0 with chance 1/2, so that δ adds 2 · 10 · 0.01 · 1/2.
    assert one_run.p_value(10, 1, 1, 0.0, 0.01) == pytest.approx(0.5 + 0.1)


def test_all_guesses_right_bound_epsilon_by_their_number() -> None:
    # 0.05 = p^r: ε = ln(p / (1 − p)).
    chance = 0.05 ** (1 / 100)
    assert one_run.lower_bound(100, 100, 100, 0.0, 0.05) == pytest.approx(math.log(chance / (1 - chance)), abs=1e-6)
    assert one_run.lower_bound(100, 0, 0, 0.0, 0.05) == 0.0


@settings(max_examples=25)
@given(st.integers(1, 200), st.data())
def test_one_more_right_guess_never_shows_less(guesses: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(1, guesses))
    fewer, more = (one_run.lower_bound(400, guesses, number, 1e-4, 0.05) for number in (right - 1, right))
    assert more >= fewer - 1e-9
