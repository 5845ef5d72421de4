"""Whose records a run reads: found again under other file names, and never told by name."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.client.ledger import covered
from fedsite.client.ledger.covered import Covered, hashed, unknown, unpack
from fedsite.telemetry.coverage import SITE, Coverage
from tests.budgets import KEY

OTHER_KEY = bytes(31) + b"\1"

times = st.one_of(st.floats(-1e9, 1e9), st.sampled_from([-math.inf, math.inf]))
spans = st.tuples(times, times).map(lambda pair: (min(pair), max(pair)))
coverages = st.builds(
    Coverage,
    clock=st.sampled_from(["utc", "cycle", "none"]),
    entities=st.dictionaries(st.sampled_from(["pump-1", "pump-2", "pump-3", SITE]), spans, max_size=4),
    columns=st.sampled_from([(), ("pump",), ("plant", "pump")]),
)


def of(name: str, first: float, last: float, clock: str = "utc", key: bytes = KEY) -> Covered:
    return hashed(Coverage(clock=clock, entities={name: (first, last)}), key)


def test_windows_of_other_times_are_others_and_an_entity_stays_itself() -> None:
    first, later = of("a", 0, 10), of("a", 11, 20)
    assert not first.meets(later, timed=True)
    assert first.meets(later, timed=False)
    assert first.meets(of("a", 10, 20), timed=True)
    assert not first.meets(of("b", 0, 10), timed=False)


def test_what_cannot_be_compared_is_the_same() -> None:
    known = of("a", 0, 10)
    assert known.meets(of("a", 50, 60, "cycle"), timed=True)  # another clock
    assert known.meets(of("b", 50, 60, key=OTHER_KEY), timed=True)  # the site has a new identity
    assert known.meets(of(SITE, 5, 6), timed=True)
    assert known.meets(unknown(), timed=True)
    assert unknown().meets(known, timed=True)
    assert known.meets(hashed(Coverage(clock="utc", entities={}), KEY), timed=True)  # says nothing: everything


def test_names_out_of_other_columns_cannot_be_compared() -> None:
    """Which column names an entity is for the centre to say, and another one makes no new records."""
    one, other = (
        hashed(Coverage(clock="utc", entities={name: (at, at + 1)}, columns=(column,)), KEY)
        for name, at, column in (("a", 0.0, "unit"), ("s-17", 50.0, "serial"))
    )
    for timed in (False, True):
        assert one.meets(other, timed=timed)
        assert one.joined(other).meets(of("b", 9, 9), timed=timed)
    assert not one.within(other)
    assert one.within(one.joined(other))
    # A site that is one entity is compared by its times, whatever columns others go by.
    assert not one.meets(of(SITE, 5, 6), timed=True)


def test_names_are_hidden() -> None:
    packed = of("patient-4711", 0, 1).pack()
    assert len(packed) == 32
    assert b"4711" not in packed
    assert of("patient-4711", 0, 1, key=OTHER_KEY).pack()[:16] != packed[:16]


@given(coverages, coverages)
def test_it_meets_what_the_plain_coverages_share(one: Coverage, two: Coverage) -> None:
    """Hiding the names hides no overlap."""
    first, second = hashed(one, KEY), hashed(two, KEY)
    if one.overlaps(two):
        assert first.meets(second, timed=True)
    if first.meets(second, timed=True):
        assert first.meets(second, timed=False)
    assert first.meets(second, timed=True) == second.meets(first, timed=True)


@given(coverages, coverages, coverages)
def test_what_two_cover_together_meets_whatever_either_meets(one: Coverage, two: Coverage, three: Coverage) -> None:
    first, second, third = (hashed(found, KEY) for found in (one, two, three))
    both = first.joined(second)
    for timed in (False, True):
        if first.meets(third, timed=timed) or second.meets(third, timed=timed):
            assert both.meets(third, timed=timed)
    if first.clock == second.clock:
        assert first.within(both)
        assert second.within(both)


@given(coverages, coverages, coverages)
def test_what_is_within_meets_no_more(one: Coverage, two: Coverage, three: Coverage) -> None:
    """A run that stays within what was checked needs no other check."""
    inner, outer, other = (hashed(found, KEY) for found in (one, two, three))
    if inner.within(outer):
        for timed in (False, True):
            if inner.meets(other, timed=timed):
                assert outer.meets(other, timed=timed)


@given(coverages)
def test_it_reads_what_it_wrote(found: Coverage) -> None:
    kept = hashed(found, KEY)
    assert unpack(kept.key, kept.clock, kept.pack()) == kept


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_a_key_is_named_and_not_told(key: bytes) -> None:
    assert covered.key_id(key) != key.hex()[:32]
    assert len(covered.key_id(key)) == 32
