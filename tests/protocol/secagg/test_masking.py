"""Masks: what is added comes off again, in pieces, with threads, in any order."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol.secagg import masking
from fedsite.protocol.secagg.masking import BLOCK, Mask
from tests.mask_words import words


def test_a_mask_and_its_inverse_cancel() -> None:
    masks = [Mask(os.urandom(32)), Mask(os.urandom(32), -1)]
    vector = np.arange(BLOCK + 3, dtype=np.uint32)
    masking.apply(vector, masks)
    assert not np.array_equal(vector, np.arange(BLOCK + 3))
    masking.apply(vector, [Mask(mask.seed, -mask.sign) for mask in masks])
    assert np.array_equal(vector, np.arange(BLOCK + 3))


@given(st.integers(1, 3 * BLOCK), st.integers(1, 4))
def test_pieces_and_threads_give_the_same_words(count: int, threads: int) -> None:
    masks = [Mask(bytes([number]) * 32, -1 if number % 2 else 1) for number in range(3)]
    whole, pieces = np.zeros(count, np.uint32), np.zeros(count, np.uint32)
    masking.apply(whole, masks, threads=threads)
    for block in reversed(range(-(-count // BLOCK))):
        masking.apply(pieces[block * BLOCK : (block + 1) * BLOCK], masks, first_block=block)
    assert np.array_equal(whole, pieces)


def test_a_stream_looks_uniform() -> None:
    """Chi-square of the low bytes of 2^18 words of one fixed stream: 255 degrees of freedom, far inside six sigma."""
    counts = np.bincount(words(bytes(32), 1 << 18) & 255, minlength=256)
    expected = (1 << 18) / 256
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert abs(statistic - 255) < 6 * np.sqrt(2 * 255)


def test_streams_of_different_seeds_and_ciphers_differ() -> None:
    seen = {words(seed, 4).tobytes() for seed in (bytes(32), bytes(31) + b"\1")}
    seen.add(words(bytes(32), 4, stream="chacha20").tobytes())
    assert len(seen) == 3


@pytest.mark.parametrize("vector", [np.zeros(4, np.int64), np.zeros((2, 2), np.uint32), np.zeros(8, np.uint32)[::2]])
def test_only_a_contiguous_vector_of_words_is_masked(vector: np.ndarray) -> None:
    with pytest.raises(ValueError, match="contiguous"):
        masking.apply(vector, [Mask(bytes(32))])


def test_a_seed_is_not_printed() -> None:
    assert "secret" not in repr(Mask(b"secret" * 5 + b"ab"))
