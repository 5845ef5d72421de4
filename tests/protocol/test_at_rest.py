"""Secrets on disk open under their own key and name, whole, and otherwise not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol.at_rest import lock, unlock
from fedsite.protocol.errors import IntegrityError, RefusalCode

KEY = bytes(range(32))


@given(data=st.binary(max_size=100), place=st.floats(0, 1, exclude_max=True))
def test_what_is_locked_opens_whole_or_not_at_all(data: bytes, place: float) -> None:
    locked = lock(KEY, data, "a thing")
    assert unlock(KEY, locked, "a thing") == data
    assert data not in locked or len(data) < 4
    at = int(place * len(locked))
    altered = locked[:at] + bytes([locked[at] ^ 1]) + locked[at + 1 :]
    for key, found, what in (
        (bytes(32), locked, "a thing"),
        (KEY, locked, "another thing"),
        (KEY, locked[:-1], "a thing"),
        (KEY, locked[:11], "a thing"),
        (KEY, altered, "a thing"),
    ):
        with pytest.raises(IntegrityError, match="does not open") as error:
            unlock(key, found, what)
        assert error.value.refusal == RefusalCode.STORAGE


def test_the_same_secret_is_never_written_twice_alike() -> None:
    assert lock(KEY, b"secret", "a thing") != lock(KEY, b"secret", "a thing")
