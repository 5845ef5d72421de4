"""Times in documents: one spelling, both ways."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol import instants
from fedsite.protocol.errors import DocumentError


@given(st.datetimes(datetime(1970, 1, 1), datetime(2999, 12, 31)))
def test_read_is_the_inverse_of_text(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    assert instants.read(instants.text(moment)) == moment


def test_other_zones_and_fractions() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert instants.text(moment) == "2026-01-02T01:04:05Z"


@pytest.mark.parametrize(
    "value", ["", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02T03:04:05+00:00", "2026-02-30T00:00:00Z"]
)
def test_other_spellings_are_refused(value: str) -> None:
    with pytest.raises(DocumentError):
        instants.read(value)


def test_a_moment_without_zone_is_refused() -> None:
    with pytest.raises(DocumentError):
        instants.text(datetime(2026, 1, 2))


def test_now_is_utc() -> None:
    assert instants.now().tzinfo is UTC
