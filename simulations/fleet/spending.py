"""What a run costs the sites in privacy: the worst case that the plan claims, and what each site really took part in.

The count is production's (models.spends, privacy.accounting). A site that was asked counts as having trained: what it
released is spent, whether or not it arrived. Every site is asked for statistics, evaluation and calibration.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsite.models import spends
from fedsite.privacy.accounting import epsilon
from fedsite.privacy.distributed import equivalent_epsilon
from fedsite.protocol.plan import RoundPlan
from fedsite.simulations.runs.draws import Ints

KNOTS = 9  # numbers of rounds for which ε is worked out; between them it is bounded by the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """ε of one claim. Shapes: `epsilons` [site]."""

    unit: str  # window, entity or site
    delta: float
    claimed: float  # of a site that took part in all rounds
    largest: float
    median: float
    epsilons: NDArray[np.float64]


def spent(plan: RoundPlan, participations: Ints) -> tuple[Spent, ...]:
    """What each claim of the plan costs sites that were asked in so many rounds, [site]; empty without privacy.

    Raises:
        PrivacyError: an ε that no accountant can give.
    """
    found = []
    for unit in plan.privacy.units:
        known, place = np.unique(participations, return_inverse=True)
        curve = _curve(plan, unit, known)
        epsilons = curve[place]
        claimed = _epsilon(plan, unit, plan.rounds.count)
        found.append(
            Spent(
                unit=unit,
                delta=plan.privacy.claim(unit).delta,
                claimed=claimed,
                largest=float(epsilons.max()),
                median=float(np.median(epsilons)),
                epsilons=epsilons,
            )
        )
    return tuple(found)


def _curve(plan: RoundPlan, unit: str, rounds: Ints) -> NDArray[np.float64]:
    """ε after so many rounds, rising, [number]: exact at some, and that of the next of these elsewhere."""
    knots = rounds if len(rounds) <= KNOTS else rounds[np.linspace(0, len(rounds) - 1, KNOTS).round().astype(int)]
    values = np.array([_epsilon(plan, unit, int(number)) for number in knots])
    return np.asarray(values[np.searchsorted(knots, rounds)])


def _epsilon(plan: RoundPlan, unit: str, rounds: int) -> float:
    asked = dataclasses.replace(spends.whole(plan), trained=rounds)
    if unit == plan.privacy.unit:
        return epsilon(spends.own(plan, asked), plan.privacy.delta, plan.privacy.accountant)
    return equivalent_epsilon(spends.in_sums(plan, asked), plan.privacy.site.delta)
