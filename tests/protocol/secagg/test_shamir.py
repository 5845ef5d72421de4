"""Shamir over GF(2^8): any t of n give the secret, t − 1 are consistent with every secret."""

import itertools
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol.secagg import shamir


@given(st.binary(min_size=1, max_size=40), st.integers(1, 12), st.data())
def test_any_threshold_of_shares_gives_the_secret(secret: bytes, holders: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, holders))
    chosen = data.draw(st.permutations(range(holders)))[:threshold]
    shares = shamir.share(secret, holders, threshold)
    weights = shamir.weights([place + 1 for place in chosen])
    assert shamir.combine(shares[chosen], weights) == secret


def test_a_line_by_hand() -> None:
    """secret 5, a_1 = 3: share(1) = 5 ⊕ 3 = 6, share(2) = 5 ⊕ 6 = 3; weights at 0 of x = 1, 2 are 2/3 and 1/3."""
    shares = shamir.share(b"\x05", 2, 2, lambda count: b"\x03" * count)
    assert shares[:, 0].tolist() == [6, 3]
    assert shamir.combine(shares, shamir.weights([1, 2])) == b"\x05"


def test_fewer_shares_fit_every_secret() -> None:
    """With t = 2 and one share known, each of the 256 secrets has exactly one polynomial through it."""
    known = 0x5A
    secrets = set()
    for coefficient in range(256):
        at_one = shamir.share(b"\0", 1, 1)[0, 0] ^ coefficient  # a_1 · 1
        secrets.add(known ^ int(at_one))
    assert len(secrets) == 256


def test_halves_of_a_secret_come_back_from_halves_of_shares() -> None:
    secret = os.urandom(64)
    shares = shamir.share(secret, 5, 3)
    weights = shamir.weights([2, 4, 5])
    assert shamir.combine(shares[[1, 3, 4], :32], weights) == secret[:32]


def test_one_share_too_few_gives_something_else() -> None:
    secret = os.urandom(32)
    shares = shamir.share(secret, 5, 3)
    for pair in itertools.combinations(range(5), 2):
        assert shamir.combine(shares[list(pair)], shamir.weights([place + 1 for place in pair])) != secret


@pytest.mark.parametrize(("holders", "threshold"), [(0, 1), (3, 4), (3, 0), (256, 2)])
def test_what_cannot_be_shared_is_refused(holders: int, threshold: int) -> None:
    with pytest.raises(ValueError, match="allowed"):
        shamir.share(b"x", holders, threshold)


@pytest.mark.parametrize("positions", [[1, 1], [0, 1], [256]])
def test_positions_are_distinct_and_in_the_field(positions: list[int]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        shamir.weights(positions)


def test_multiplication_is_that_of_the_field() -> None:
    """FIPS 197, section 4.2: {57} · {83} = {c1}."""
    assert shamir.PRODUCTS[0x57, 0x83] == 0xC1
    assert np.array_equal(shamir.PRODUCTS, shamir.PRODUCTS.T)
