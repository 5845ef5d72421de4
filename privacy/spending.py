"""What one run costs one site: the releases of a plan as spends, for the site's budget and for the centre's forecast.

Plain numbers only: plans are read elsewhere.
"""

from __future__ import annotations

from fedsite.privacy.accounting import Spend


def evaluations(rounds: int, evaluate_every: int) -> int:
    """Evaluations of one run on a site's holdout, at most.

    While round r ≥ 2 trains, the model of round r − 1 is evaluated if r − 1 is a multiple of `evaluate_every`; the last
    model is always evaluated, on its own.
    """
    return (rounds - 1) // evaluate_every + 1 if rounds > 0 else 0


def spends_of(
    *,
    noise_multiplier: float,
    sampling_rate: float,
    steps: int,
    rounds: int,
    statistics_noise: float = 0.0,
    evaluation_noise: float = 0.0,
    evaluations: int = 0,
    calibration_noise: float = 0.0,
) -> tuple[Spend, ...]:
    """Everything a site releases when it takes part in `rounds` rounds.

    Args:
        noise_multiplier: of DP-SGD (σ over the clipping norm).
        sampling_rate: Poisson rate of one step.
        steps: DP-SGD steps a round.
        rounds: rounds the site trains in.
        statistics_noise: noise multiplier of the normalisation statistics, released once; 0 where they are not asked.
        evaluation_noise: noise multiplier of one evaluation; 0 where there is none.
        evaluations: how many evaluations.
        calibration_noise: noise multiplier of the int8 calibration histograms, released once; 0 where not asked.
    """
    found = []
    if rounds > 0:
        found.append(Spend(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=steps * rounds))
    if statistics_noise > 0:
        found.append(Spend(noise_multiplier=statistics_noise))
    if evaluation_noise > 0 and evaluations > 0:
        found.append(Spend(noise_multiplier=evaluation_noise, steps=evaluations))
    if calibration_noise > 0:
        found.append(Spend(noise_multiplier=calibration_noise))
    return tuple(found)
