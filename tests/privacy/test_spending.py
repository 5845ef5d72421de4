"""What a run costs, counted by hand."""

from __future__ import annotations

import pytest

from fedsite.privacy.accounting import Spend
from fedsite.privacy.spending import evaluations, spends_of


@pytest.mark.parametrize(
    ("rounds", "every", "expected"), [(0, 1, 0), (1, 1, 1), (1, 5, 1), (25, 1, 25), (10, 5, 2), (11, 5, 3), (3, 7, 1)]
)
def test_evaluations(rounds: int, every: int, expected: int) -> None:
    assert evaluations(rounds, every) == expected


def test_every_release_is_a_spend() -> None:
    found = spends_of(
        noise_multiplier=1.5,
        sampling_rate=0.1,
        steps=4,
        rounds=3,
        statistics_noise=20.0,
        evaluation_noise=5.0,
        evaluations=3,
        calibration_noise=9.0,
    )
    assert found == (
        Spend(noise_multiplier=1.5, sampling_rate=0.1, steps=12),
        Spend(noise_multiplier=20.0),
        Spend(noise_multiplier=5.0, steps=3),
        Spend(noise_multiplier=9.0),
    )


def test_what_is_not_asked_costs_nothing() -> None:
    assert spends_of(noise_multiplier=1.5, sampling_rate=0.1, steps=4, rounds=0, evaluations=2) == ()
