"""Blobs of the stages: what is packed comes back, and nothing else is read."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol.errors import IntegrityError, RefusalCode
from fedsite.protocol.secagg import wire
from tests.secagg_cohort import refused

SITES = tuple(bytes([number]) * 16 for number in range(20))
counts = st.integers(0, len(SITES))
parts = st.sets(st.sampled_from(SITES))


def refuses(action: Callable[..., object], *arguments: object) -> None:
    assert refused(IntegrityError, action, *arguments) is RefusalCode.MALFORMED


def test_a_set_by_hand() -> None:
    """Ten sites, of which the first, the eighth and the ninth: 1000 0001, 1000 0000."""
    assert wire.pack_set([SITES[8], SITES[0], SITES[7]], SITES[:10]) == b"\x81\x80"
    assert wire.unpack_set(b"\x81\x80", SITES[:10]) == (SITES[0], SITES[7], SITES[8])


def test_items_are_in_the_order_of_their_sites() -> None:
    assert wire.pack_items({SITES[2]: b"cc", SITES[0]: b"aa"}) == b"aacc"
    assert wire.unpack_items(b"aacc", [SITES[2], SITES[0]], 2, "items") == {SITES[0]: b"aa", SITES[2]: b"cc"}


def test_a_share_that_does_not_open_is_33_zero_bytes() -> None:
    item = b"\x01" + bytes(32)  # a share of zeros, held at position 1, is a share
    packed = wire.pack_opened({SITES[1]: item}, SITES[:2])
    assert packed == bytes(33) + item
    assert wire.unpack_opened(packed, SITES[:2]) == {SITES[1]: item}


@given(parts, counts)
def test_sets_come_back_in_order(part: set[bytes], count: int) -> None:
    whole = SITES[:count]
    found = wire.unpack_set(wire.pack_set(part, whole), whole)
    assert found == tuple(site for site in whole if site in part)


@given(counts, st.binary(max_size=6))
def test_a_set_of_another_length_or_with_stray_bits_is_refused(count: int, data: bytes) -> None:
    """Exactly those bytes are read that some set packs to."""
    whole = SITES[:count]
    stray = len(data) == (count + 7) // 8 and count % 8 and data[-1] & (0xFF >> count % 8)
    if len(data) != (count + 7) // 8 or stray:
        refuses(wire.unpack_set, data, whole)
    else:
        assert wire.pack_set(wire.unpack_set(data, whole), whole) == data


@given(st.dictionaries(st.sampled_from(SITES), st.binary(min_size=5, max_size=5)))
def test_items_come_back(items: dict[bytes, bytes]) -> None:
    assert wire.unpack_items(wire.pack_items(items), list(items), 5, "items") == items


@given(parts, st.integers(1, 90), st.integers(0, 2000))
def test_items_of_another_length_are_refused(sites: set[bytes], size: int, length: int) -> None:
    if length == size * len(sites):
        assert set(wire.unpack_items(bytes(length), sites, size, "items")) == sites
    else:
        refuses(wire.unpack_items, bytes(length), sites, size, "items")


@given(st.dictionaries(st.sampled_from(SITES), st.binary(min_size=33, max_size=33)), parts)
def test_opened_shares_come_back_and_gaps_stay_gaps(opened: dict[bytes, bytes], more: set[bytes]) -> None:
    sources = set(opened) | more
    found = wire.unpack_opened(wire.pack_opened(opened, sources), sources)
    assert found == {source: item for source, item in opened.items() if item != wire.NOTHING}
    refuses(wire.unpack_opened, wire.pack_opened(opened, sources) + b"\0", sources)


@given(st.binary(max_size=20), st.integers(0, 20))
def test_a_split_takes_what_is_there_and_no_more(data: bytes, size: int) -> None:
    if size > len(data):
        refuses(wire.split, data, size, "a blob")
    else:
        first, rest = wire.split(data, size, "a blob")
        assert (len(first), first + rest) == (size, data)
