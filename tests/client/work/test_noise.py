"""A site's part of the noise of a sum: its size by chi-square, its clip by hand, and what it may be drawn from.

All draws come from fixed seeds: a failure is a change, never bad luck.
"""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedsite.client.work import noise
from fedsite.privacy import distributed, integer_noise
from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.integer_noise import Mechanism
from fedsite.privacy.sampling import SeededSource, Source
from fedsite.protocol.errors import IntegrityError
from fedsite.protocol.secagg import fixedpoint, masking
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest, Noise, Terms
from tests.mask_words import words

WORDS = 4000
CLIP = 2.0


def manifest(mechanism: Mechanism = "skellam", words: int = WORDS, multiplier: float = 1.5) -> Manifest:
    """Five sites; a sum is opened over three at least, one of which may help the server."""
    return Manifest(
        purpose="train",
        plan_hash="ab" * 32,
        sites=5,
        fields=(Field(name="delta/a", shape=(words - 1,), bound=CLIP), Field(name="delta/b", shape=(1,), bound=CLIP)),
        terms=Terms(min_cohort=4, min_survivors=3, colluding=1),
        noise=(Noise(prefix="delta/", mechanism=mechanism, clip=CLIP, multiplier=multiplier),),
    )


def values(flat: np.ndarray) -> dict[str, np.ndarray]:
    return {"delta/a": flat[:-1], "delta/b": flat[-1:]}


def part(flat: np.ndarray, terms: Manifest, seed: int) -> np.ndarray:
    return noise.noised(values(flat), terms, SeededSource((40, seed)), simulated=True)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete-gaussian"])
@pytest.mark.parametrize("survivors", [5, 4, 3])
def test_the_sum_holds_the_promised_noise_whoever_drops_out(mechanism: Mechanism, survivors: int) -> None:
    """Sites that send zeros: what is opened is noise alone, of variance σ² · survivors / honest, honest being 2.

    Without the one colluding site's part at least σ² = (1.5 · 2)² is left.
    """
    terms = manifest(mechanism)
    total = sum(part(np.zeros(WORDS), terms, site) for site in range(survivors))
    opened = fixedpoint.decode(terms.fields, total, terms.scales, sites=5)
    flat = np.concatenate([opened["delta/a"], opened["delta/b"]])
    promised = (1.5 * CLIP) ** 2
    square = float((flat**2).sum()) / (promised * survivors / 2)
    assert 1e-3 < stats.chi2.sf(square, WORDS) < 1 - 1e-3
    without_one = float(((flat - part_in_units(terms, 0)) ** 2).sum()) / WORDS
    assert without_one > 0.9 * promised


def part_in_units(terms: Manifest, site: int) -> np.ndarray:
    opened = fixedpoint.decode(terms.fields, part(np.zeros(WORDS), terms, site), terms.scales, sites=5)
    return np.concatenate([opened["delta/a"], opened["delta/b"]])


def test_the_mean_is_of_the_clipped_updates() -> None:
    """One site's update is twice the clip and is halved; the noise of 1e-4 is next to nothing."""
    terms = manifest(multiplier=1e-4, words=3)
    updates = [np.array([0.0, 4.0, 0.0]), np.array([1.0, 0.0, 0.5]), np.array([1.0, 1.0, 0.0])]
    total = sum(part(update, terms, site) for site, update in enumerate(updates))
    opened = fixedpoint.decode(terms.fields, total, terms.scales, sites=5)
    np.testing.assert_allclose(opened["delta/a"], [2.0, 3.0], atol=2e-3)
    np.testing.assert_allclose(opened["delta/b"], [0.5], atol=2e-3)


class Quiet:
    """A table that draws zeros: what is left is what one site moves the sum by."""

    def draw(self, words: int, source: Source) -> np.ndarray:
        return np.zeros(words, np.int64)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 300), st.floats(1e-3, 1e6), st.integers(0, 2**32), st.floats(0.01, 50.0))
def test_one_site_moves_the_sum_by_no_more_than_the_charged_norm(
    words: int, size: float, seed: int, multiplier: float
) -> None:
    terms = manifest(words=words, multiplier=multiplier)
    update = np.random.default_rng(seed).normal(size=words) * size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integer_noise, "table", lambda mechanism, variance: Quiet())
        with_it, without = part(update, terms, seed), part(np.zeros(words), terms, seed)
    grid = terms.grid(terms.noise[0])
    moved = float(np.linalg.norm((with_it - without).astype(np.float64)))
    assert moved <= distributed.rounded_norm(CLIP, grid.scale, words)
    assert not without.any()


def test_each_kind_of_value_is_clipped_by_itself() -> None:
    """An update far above its clip takes nothing from the evaluation beside it."""
    terms = Manifest(
        purpose="train",
        plan_hash="ab" * 32,
        sites=3,
        fields=(Field(name="delta/w", shape=(2,), bound=1.0), Field(name="evaluation/count", shape=(1,), bound=2.0)),
        noise=(
            Noise(prefix="delta/", clip=1.0, multiplier=1e-3),
            Noise(prefix="evaluation/", clip=2.0, multiplier=1e-3),
        ),
    )
    given_values = {"delta/w": np.array([30.0, 40.0]), "evaluation/count": np.array([1.0])}
    steps = noise.noised(given_values, terms, SeededSource(3), simulated=True)
    opened = fixedpoint.decode(terms.fields, steps, terms.scales, sites=3)
    np.testing.assert_allclose(opened["delta/w"], [0.6, 0.8], atol=0.02)
    np.testing.assert_allclose(opened["evaluation/count"], [1.0], atol=0.02)


@pytest.mark.parametrize("wild", [np.nan, np.inf, 1e308])
def test_clipping_bears_any_number(wild: float) -> None:
    found = noise.clipped(np.array([wild, 3.0, 4.0, wild]), 1.0)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found) <= 1.0
    np.testing.assert_array_equal(noise.clipped(np.array([0.3, 0.4]), 1.0), [0.3, 0.4])
    assert not noise.clipped(np.zeros(3), 1.0).any()


def test_a_seeded_source_is_refused() -> None:
    with pytest.raises(PrivacyError, match="seeded"):
        noise.noised(values(np.zeros(WORDS)), manifest(), SeededSource(1))


def test_a_missing_value_is_refused() -> None:
    with pytest.raises(IntegrityError, match="delta/b"):
        noise.noised({"delta/a": np.zeros(WORDS - 1)}, manifest(), noise.keystream())


def test_two_sites_draw_other_noise_and_no_number_is_drawn_twice() -> None:
    terms, nothing = manifest(), values(np.zeros(WORDS))
    one, two = noise.noised(nothing, terms, noise.keystream()), noise.noised(nothing, terms, noise.keystream())
    assert not np.array_equal(one, two)
    seed = bytes(range(32))
    source = noise.keystream(lambda size: seed[:size])
    stream = words(seed, 4 * masking.BLOCK).view(np.uint64)
    first, second = source.bits(5), source.bits(masking.BLOCK)  # more than a block
    np.testing.assert_array_equal(first, stream[:5])
    np.testing.assert_array_equal(second, stream[masking.BLOCK // 2 :][: masking.BLOCK])
    assert not source.seeded


def test_uniform_bits_of_the_keystream() -> None:
    numbers = count()
    source = noise.keystream(lambda size: next(numbers).to_bytes(size, "big"))
    draws = source.uniform(1 << 16)
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    assert math.isclose(draws.mean(), 0.5, abs_tol=0.01)
