"""Ids name keys and runs; only one spelling of each is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol import ids
from fedsite.protocol.errors import DocumentError


def test_a_site_is_the_first_half_of_its_keys_hash() -> None:
    # SHA-256 of the empty string starts with e3b0c442….
    assert ids.site_id(b"") == "e3b0c44298fc1c149afbf4c8996fb924"


def test_ulid_of_the_specification() -> None:
    # 01ARYZ6S41 is the time part of the example in the ULID specification: 1469918176385 ms.
    assert ids.ulid(lambda: 1469918176.385, lambda n: b"\0" * n) == "01ARYZ6S410000000000000000"
    assert ids.ulid(lambda: 0.0, lambda n: b"\xff" * n) == "0000000000ZZZZZZZZZZZZZZZZ"


def test_later_runs_sort_later() -> None:
    assert ids.ulid(lambda: 1.0) < ids.ulid(lambda: 1.002) < ids.ulid()


@given(st.binary(min_size=16, max_size=16))
def test_run_id_is_the_inverse_of_run_bytes(data: bytes) -> None:
    assert ids.run_bytes(ids.run_id(data)) == data


RUN = "01ARYZ6S410000000000000000"


@pytest.mark.parametrize(
    "text",
    ["", RUN[1:], "8" + RUN[1:], RUN.lower(), RUN[:-1] + "I", "../" * 8 + "ab", RUN + "\n", RUN[:-1] + "٣", None],
)
def test_another_spelling_is_no_run(text: str) -> None:
    with pytest.raises(DocumentError):
        ids.run_bytes(text)


@pytest.mark.parametrize("text", ["", "00", "AB" * 16, "g0" * 16, "ab" * 16 + "\n", "٣" * 32, None, 5])
def test_another_spelling_is_no_id(text: str) -> None:
    with pytest.raises(DocumentError):
        ids.id_bytes(text)
    with pytest.raises(DocumentError):
        ids.hash_bytes(text)


def test_run_id_asks_for_16_bytes() -> None:
    with pytest.raises(DocumentError):
        ids.run_id(b"short")
