"""Integer noise against exact probabilities: tables to the last bit of a float, draws by chi-square and moments.

All draws come from fixed seeds: a failure is a change, never bad luck.
"""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import ive

from fedsite.privacy import integer_noise
from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.integer_noise import Mechanism, Table
from fedsite.privacy.sampling import SeededSource

DRAWS = 1 << 20


def masses(table: Table) -> np.ndarray:
    """P[|X| = m] as the table has it."""
    places = [int(high) << 64 | int(low) for high, low in zip(table.high, table.low, strict=True)]
    return np.array([(b - a) / 2**127 for a, b in zip([0, *places[:-1]], places, strict=True)])


def exact(mechanism: Mechanism, variance: float, count: int) -> np.ndarray:
    """P[|X| = m] by SciPy, or by summing the definition."""
    m = np.arange(count)
    one = ive(m, variance) if mechanism == "skellam" else np.exp(-(m.astype(float) ** 2) / (2 * variance))
    both = np.where(m > 0, 2 * one, one)
    return both if mechanism == "skellam" else both / math.fsum(both)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
@pytest.mark.parametrize("variance", [0.25, 1.0, 16.0, 1234.5, 1e6])
def test_the_table_is_the_distribution(mechanism: Mechanism, variance: float) -> None:
    table = integer_noise.table(mechanism, variance)
    found = masses(table)
    np.testing.assert_allclose(found, exact(mechanism, variance, len(found)), atol=2e-16, rtol=1e-9)
    assert math.fsum(found) == 1.0
    assert table.distance < integer_noise.DISTANCE


def test_skellam_of_variance_two_by_hand() -> None:
    """P[X = 0] = e^-2 I_0(2) = e^-2 (1 + 1 + 1/4 + 1/36 + 1/576 + …) = 0.308508…"""
    by_hand = math.exp(-2) * sum(1 / math.factorial(k) ** 2 for k in range(12))
    assert masses(integer_noise.table("skellam", 2.0))[0] == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
@pytest.mark.parametrize("variance", [1.0, 100.0])
def test_draws_follow_the_exact_probabilities(mechanism: Mechanism, variance: float) -> None:
    draws = integer_noise.table(mechanism, variance).draw(DRAWS, SeededSource(5))
    reach = math.ceil(4 * math.sqrt(variance))
    m = np.arange(-reach, reach + 1)
    both = exact(mechanism, variance, 14 * reach)
    chance = np.where(m == 0, both[np.abs(m)], both[np.abs(m)] / 2)
    counts = np.array([(draws == value).sum() for value in m] + [(np.abs(draws) > reach).sum()])
    expected = DRAWS * np.append(chance, 1 - chance.sum())
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
def test_moments_and_tails(mechanism: Mechanism) -> None:
    variance = 2500.0
    draws = integer_noise.table(mechanism, variance).draw(DRAWS, SeededSource(6)).astype(float)
    kurtosis = 3.0 + (1.0 / variance if mechanism == "skellam" else 0.0)
    assert abs(draws.mean()) < 5 * math.sqrt(variance / DRAWS)
    assert draws.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / DRAWS))
    assert (draws**4).mean() / variance**2 == pytest.approx(kurtosis, abs=5 * math.sqrt(96 / DRAWS))
    beyond = (np.abs(draws) > 3 * math.sqrt(variance)).mean()
    assert beyond == pytest.approx(2 * stats.norm.sf(150.5 / 50), rel=0.15)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
@pytest.mark.parametrize("variance", [0.25, 100.0, 2500.0])
def test_tails_have_their_exact_weight(mechanism: Mechanism, variance: float) -> None:
    """P[X > r] and P[X < −r] at 1, 2, 3 and 4 σ, each within five standard deviations of a binomial count."""
    draws = integer_noise.table(mechanism, variance).draw(DRAWS, SeededSource(9))
    both = exact(mechanism, variance, 200 + math.ceil(14 * math.sqrt(variance)))
    for sigmas in (1, 2, 3, 4):
        reach = math.floor(sigmas * math.sqrt(variance))
        chance = math.fsum(both[reach + 1 :]) / 2
        for count in ((draws > reach).sum(), (draws < -reach).sum()):
            assert abs(count - DRAWS * chance) < 5 * math.sqrt(DRAWS * chance * (1 - chance)) + 1


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
def test_wide_noise_by_chi_square_over_bins(mechanism: Mechanism) -> None:
    """σ of 1,000 steps, 64 bins of nearly equal exact weight."""
    variance = 1e6
    both = exact(mechanism, variance, 14_000)
    one_side = both / 2
    mass = np.concatenate([one_side[:0:-1], both[:1], one_side[1:]])  # from −13,999 up
    below = np.cumsum(mass)
    edges = np.searchsorted(below, np.arange(1, 64) / 64) - 13_999  # the last value of each bin but the last one
    draws = integer_noise.table(mechanism, variance).draw(DRAWS, SeededSource(10))
    counts = np.bincount(np.searchsorted(edges, draws), minlength=64)
    chance = np.diff(np.concatenate([[0.0], below[edges + 13_999], [below[-1]]]))
    assert stats.chisquare(counts, DRAWS * chance / chance.sum()).pvalue > 1e-3


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
def test_one_draw_says_nothing_about_the_next(mechanism: Mechanism) -> None:
    """Pairs of consecutive draws by sign and by size: a table of counts without a pattern."""
    draws = integer_noise.table(mechanism, 4.0).draw(DRAWS, SeededSource(11)).reshape(-1, 2)
    kinds = np.clip(draws, -3, 3) + 3
    table = np.bincount(kinds[:, 0] * 7 + kinds[:, 1], minlength=49).reshape(7, 7)
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_skellam_parts_add_up_to_skellam() -> None:
    """Ten parts of variance 10 are one of variance 100: what the server is promised."""
    part = integer_noise.table("skellam", 10.0)
    total = sum(part.draw(1 << 17, SeededSource((7, number))) for number in range(10))
    whole = integer_noise.table("skellam", 100.0).draw(1 << 17, SeededSource(8))
    edges = np.arange(-35, 37, 5) - 0.5
    table = np.array([np.histogram(sample, edges)[0] for sample in (total, whole)])
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_a_draw_on_a_threshold_is_settled_by_more_bits() -> None:
    """P = 1/2 each for 0 and ±1, with a boundary that the first 63 bits cannot tell."""

    class Bits:
        seeded = True

        def __init__(self, *words: int) -> None:
            self.words = list(words)

        def bits(self, n: int) -> np.ndarray:
            found, self.words = self.words[:n], self.words[n:]
            return np.array(found, np.uint64)

        uniform = normal = bits

    table = Table(
        variance=0.5,
        high=np.array([1 << 62, 1 << 63], np.uint64),
        low=np.array([1 << 63, 0], np.uint64),
        distance=0.0,
    )
    boundary = (1 << 62) << 1
    for fine, expected in ((0, 0), ((1 << 63) - 1, 0), (1 << 63, 1), ((1 << 64) - 1, 1)):
        assert table.draw(1, Bits(boundary, fine)).tolist() == [expected]
    assert table.draw(1, Bits(boundary + 3)).tolist() == [-1]
    assert table.draw(1, Bits(boundary - 2)).tolist() == [0]


@pytest.mark.parametrize("variance", [0.0, 0.01, -1.0, 1e12])
def test_noise_too_small_or_too_large_for_a_table_is_refused(variance: float) -> None:
    with pytest.raises(PrivacyError, match="steps"):
        integer_noise.table("skellam", variance)
