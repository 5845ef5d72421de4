"""The secrets of a sum, found among shares of which some may be lies.

A secret is known by its image (a hash, a public key), so every guess is checked at once. Whose share turned out not to
be on a secret's polynomial is asked last for the next one: last, not never, for the maker of the shares may have given
it a bad one. Lies by up to half of the shares above the threshold are found for certain; one lie is found however few
there are above it. More of them may be found by chance, in a bounded number of tries.

Source: Welch and Berlekamp, US patent 4,633,470 (1986), in the form of Gemmell and Sudan, IPL 43(4), 1992.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedsite.protocol.secagg import shamir
from fedsite.protocol.secagg.shamir import Bytes

DRAWS = 3  # a lie hides from one random mixture of a share's bytes with probability 1/256
TRIES = 64  # choices by chance, after everything that is certain
_CHANCE = secrets.SystemRandom()
Shares = Mapping[bytes, bytes]  # x ‖ share, by holder


@dataclass(slots=True, kw_only=True)
class Finder:
    """Finds one secret after the other, and remembers who lied."""

    threshold: int
    wrong: Counter[bytes] = field(default_factory=Counter)  # by holder: secrets that its share did not fit

    def find(self, shares: Shares, image: Callable[[bytes], bytes], expected: bytes) -> bytes | None:
        """The secret whose image is as expected; None where these shares do not give it."""
        order = sorted(shares, key=lambda holder: (self.wrong[holder], shares[holder][0]))
        if len(order) < self.threshold:
            return None
        for number, chosen in enumerate(self._choices(order, shares)):
            found = _at(0, [shares[holder] for holder in chosen])
            if image(found) == expected:
                if number:
                    self._learn(chosen, shares)
                return found
        return None

    def _choices(self, order: Sequence[bytes], shares: Shares) -> Iterator[Sequence[bytes]]:
        """Holders to believe, the most credible choice first."""
        yield order[: self.threshold]
        spare = len(order) - self.threshold
        if spare == 0:
            return
        if spare == 1:
            yield from ([*order[:place], *order[place + 1 :]] for place in range(self.threshold))
            return
        trusted = [holder for holder in order if not self.wrong[holder]]
        for among in (order, trusted) if self.threshold < len(trusted) < len(order) else (order,):
            for _ in range(DRAWS):
                honest = _without_liars(among, shares, self.threshold)
                if len(honest) >= self.threshold:
                    yield honest[: self.threshold]
        for _ in range(TRIES):
            yield _CHANCE.sample(order, self.threshold)

    def _learn(self, chosen: Sequence[bytes], shares: Shares) -> None:
        """Count whose shares are not on the polynomial through the chosen ones."""
        good = [shares[holder] for holder in chosen]
        for holder in shares.keys() - set(chosen):
            if _at(shares[holder][0], good) != shares[holder][1:]:
                self.wrong[holder] += 1


def _at(x: int, shares: Sequence[bytes]) -> bytes:
    """The polynomial through these shares, at a place where none of them is."""
    rows = np.frombuffer(b"".join(shares), np.uint8).reshape(len(shares), -1)
    # In this field x_i − x is x_i ⊕ x: what is at x is at 0 of the polynomial moved by x.
    return shamir.combine(rows[:, 1:], shamir.weights([int(place) ^ x for place in rows[:, 0]]))


def _without_liars(holders: Sequence[bytes], shares: Shares, threshold: int) -> list[bytes]:
    """Those of the holders who told the truth, but for a few; all of them, if at most half of the spare ones lied.

    With P the polynomial, y the shares and E one that is 0 where somebody lied, E·P − E·y is 0 at every holder. Any E
    and Q of the degrees of these, not both 0, with Q − E·y = 0 at every holder do: where somebody lied, E is 0.
    """
    errors = (len(holders) - threshold) // 2
    rows = np.frombuffer(b"".join(shares[holder] for holder in holders), np.uint8).reshape(len(holders), -1)
    mixture = np.frombuffer(secrets.token_bytes(rows.shape[1] - 1), np.uint8)
    mixed = np.bitwise_xor.reduce(shamir.PRODUCTS[mixture, rows[:, 1:]], axis=1)
    powers = shamir.powers(rows[:, 0], threshold + errors)
    located = powers[:, : errors + 1]
    relation = _relation(np.hstack([shamir.PRODUCTS[mixed[:, None], located], powers]))
    values = np.bitwise_xor.reduce(shamir.PRODUCTS[relation[: errors + 1], located], axis=1)
    return [holder for holder, value in zip(holders, values, strict=True) if value]


def _relation(rows: Bytes) -> Bytes:
    """Factors of the columns, not all 0, with which they add up to 0 in every row; zeros where there are none."""
    left, factors = rows.copy(), np.zeros(rows.shape[1], np.uint8)
    for column in range(rows.shape[1]):
        found = np.flatnonzero(left[column:, column])
        if not found.size:  # this column is made of those before it
            factors[:column], factors[column] = left[:column, column], 1
            return factors
        left[[column, column + found[0]]] = left[[column + found[0], column]]
        left[column] = shamir.PRODUCTS[shamir.inverse(int(left[column, column])), left[column]]
        others = left[:, column].copy()
        others[column] = 0
        left ^= shamir.PRODUCTS[others[:, None], left[column]]
    return factors
