"""From what a site releases to (ε, δ): Rényi and numerical (PRV) accounting of Poisson-subsampled Gaussian mechanisms.

Every release is a `Spend`; a run is a list of them, composed as a whole. Adjacency is add/remove of one unit. Opacus
does the numerics and is imported when first asked, because it brings torch.

Source: Mironov, Talwar and Zhang 2019 (arXiv:1908.10530); Gopi, Lee and Wutschitz 2021 (arXiv:2106.02848).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.group import ORDERS, divergence

Accountant = Literal["prv", "rdp"]

EPSILON_ERROR = 0.01  # added to the PRV estimate, so that the figure is an upper bound
PRV_LIMIT = (
    64.0  # above this ε the PRV grid would not fit in memory; RDP answers, which is never smaller than the truth
)
PRV_STEPS = 50_000  # the PRV grid grows with the steps: seconds and half a gigabyte here, minutes and an OOM far beyond
_ORDERS = [1 + x / 10.0 for x in range(1, 100)] + list(range(12, 64)) + [128, 256, 512, 1024, 4096]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Spend:
    """`steps` Gaussian releases, each on a Poisson sample of rate `sampling_rate` (1: on all records)."""

    noise_multiplier: float  # σ / L2 sensitivity of one unit
    sampling_rate: float = 1.0
    steps: int = 1

    def __post_init__(self) -> None:
        if not (self.noise_multiplier > 0.0 and math.isfinite(self.noise_multiplier)):
            raise PrivacyError(f"noise multiplier {self.noise_multiplier}", allowed="above 0 and finite")
        if not 0.0 < self.sampling_rate <= 1.0:
            raise PrivacyError(f"sampling rate {self.sampling_rate}", allowed="above 0, at most 1")
        if self.steps < 0:
            raise PrivacyError(f"{self.steps} steps", allowed="0 or more")


def merged(spends: Iterable[Spend]) -> tuple[Spend, ...]:
    """The same spends, equal mechanisms counted together, in a fixed order."""
    steps: dict[tuple[float, float], int] = {}
    for spend in spends:
        key = (spend.noise_multiplier, spend.sampling_rate)
        steps[key] = steps.get(key, 0) + spend.steps
    found = (Spend(noise_multiplier=s, sampling_rate=q, steps=n) for (s, q), n in steps.items() if n)
    return tuple(sorted(found))


def epsilon(spends: Iterable[Spend], delta: float, accountant: Accountant = "prv") -> float:
    """ε at `delta` of all `spends` together; 0 for none.

    PRV gives an upper bound that is at most 0.02 above the truth. Where its numerics give out (ε above 64, tiny δ), or
    would take minutes (more than `PRV_STEPS` steps), the Rényi bound answers instead: larger, never smaller.

    Raises:
        PrivacyError: δ is not a probability, or no accountant can answer (it never guesses).
    """
    if not 0.0 < delta < 1.0:
        raise PrivacyError(f"delta {delta}", allowed="above 0, below 1")
    if accountant not in ("prv", "rdp"):
        raise PrivacyError(f"accountant {accountant!r}", allowed="prv, rdp")
    parts = merged(spends)
    return _epsilon(parts, delta, accountant) if parts else 0.0


def group_epsilon(spends: Iterable[Spend], delta: float, group: int) -> float:
    """ε at `delta` for `group` records together, such as all windows that share one reading (Rényi: it is large)."""
    if group < 1:
        raise PrivacyError(f"a group of {group} records", allowed="1 or more")
    return _group_epsilon(merged(spends), delta, group)


@lru_cache(maxsize=256)
def solve_noise_multiplier(
    target_epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    other_spends: tuple[Spend, ...] = (),
    accountant: Accountant = "prv",
) -> float:
    """The smallest noise multiplier (to 4 digits, rounded up) with which the whole run stays within `target_epsilon`.

    Raises:
        PrivacyError: the other spends alone exceed the target.
    """

    def total(sigma: float) -> float:
        step = Spend(noise_multiplier=sigma, sampling_rate=sampling_rate, steps=steps)
        return epsilon((step, *other_spends), delta, accountant)

    others = epsilon(other_spends, delta, accountant)
    if others >= target_epsilon:
        raise PrivacyError(
            f"statistics, evaluation and calibration alone cost epsilon {others:.3f}",
            allowed=f"below the target {target_epsilon}",
            next_step="raise privacy.epsilon or the noise of these releases, or set their noise to 0 to leave them out",
        )
    # ε is smooth in σ on logarithmic axes: the secant through the last two points, kept inside the bracket.
    low, high, sigma, slope = 0.0, math.inf, 1.0, -1.3
    before: tuple[float, float] | None = None
    for _ in range(60):
        found = total(sigma)
        low, high = (low, sigma) if found <= target_epsilon else (sigma, high)
        if high <= low * (1 + 3e-4) or 0.9995 * target_epsilon <= found <= target_epsilon:
            break
        if before is not None and before[0] != sigma and before[1] != found:
            slope = min(-0.2, math.log(found / before[1]) / math.log(sigma / before[0]))
        before = (sigma, found)
        guess = sigma * (found / (0.9998 * target_epsilon)) ** (-1 / slope)
        if low < guess < high:
            sigma = guess
        else:
            sigma = math.sqrt(low * high) if low > 0.0 and high < math.inf else max(2.0 * low, min(high, 1e9) / 2.0)
    if high == math.inf:
        raise PrivacyError(f"no noise reaches epsilon {target_epsilon}", next_step="raise privacy.epsilon")
    digits = 10.0 ** (3 - math.floor(math.log10(high)))
    return math.ceil(high * digits) / digits


@lru_cache(maxsize=1024)
def _epsilon(spends: tuple[Spend, ...], delta: float, accountant: Accountant) -> float:
    bound = _rdp(spends, delta)
    if accountant == "rdp" or bound > PRV_LIMIT or sum(spend.steps for spend in spends) > PRV_STEPS:
        return bound
    try:
        found = _prv(spends, delta)
    except (RuntimeError, ValueError, IndexError, FloatingPointError) as error:
        _log.debug("PRV accounting failed (%s); the Rényi bound is used", error)
        return bound
    return found if math.isfinite(found) and found > 0.0 else bound


def _rdp(spends: Sequence[Spend], delta: float) -> float:
    total = np.zeros(len(_ORDERS))
    for spend in spends:
        total = total + spend.steps * _rdp_of_step(spend.noise_multiplier, spend.sampling_rate)
    return _to_epsilon(_ORDERS, total, delta)


@lru_cache(maxsize=256)
def _rdp_of_step(noise_multiplier: float, sampling_rate: float) -> NDArray[np.float64]:
    from opacus.accountants.analysis import rdp

    return np.asarray(rdp.compute_rdp(q=sampling_rate, noise_multiplier=noise_multiplier, steps=1, orders=_ORDERS))


@lru_cache(maxsize=64)
def _group_epsilon(spends: tuple[Spend, ...], delta: float, group: int) -> float:
    total = np.zeros(len(ORDERS))
    for spend in spends:
        total = total + spend.steps * divergence(spend.noise_multiplier, spend.sampling_rate, group)
    return _to_epsilon(ORDERS, total, delta) if spends else 0.0


def _to_epsilon(orders: Sequence[float], total: NDArray[np.float64], delta: float) -> float:
    from opacus.accountants.analysis import rdp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "optimal order is the largest": the bound holds at any order
        found, _ = rdp.get_privacy_spent(orders=list(orders), rdp=total, delta=delta)
    if not math.isfinite(found):
        raise PrivacyError("epsilon is not finite", next_step="use more noise or fewer steps")
    return max(0.0, float(found))


def _prv(spends: Sequence[Spend], delta: float) -> float:
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(s.noise_multiplier, s.sampling_rate, s.steps) for s in spends]
    with np.errstate(all="ignore"), warnings.catch_warnings():  # log(1 - q) at q = 1 is -inf, as it should be
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta, eps_error=EPSILON_ERROR))
