"""Hours as people write them: every minute of a week by hand, and what is not hours is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.client.consent import hours
from fedsite.protocol.errors import ConfigError

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("22:00-06:00", ["mon 22:00", "tue 05:59", "sun 23:00"], ["mon 21:59", "tue 06:00", "sun 12:00"]),
        ("mon-fri 18:00-07:30", ["fri 18:00", "sat 07:29", "mon 18:00"], ["sat 18:00", "sun 07:00", "mon 07:00"]),
        ("sat,sun 00:00-24:00", ["sat 00:00", "sun 23:59"], ["fri 23:59", "mon 00:00"]),
        ("fri-mon 12:00-13:00", ["fri 12:00", "sun 12:30", "mon 12:59"], ["tue 12:00", "thu 12:00"]),
        ("sun 23:00-01:00", ["sun 23:30", "mon 00:30"], ["mon 01:00", "sat 23:30"]),
    ],
)
def test_windows_hold_what_they_say(text: str, inside: list[str], outside: list[str]) -> None:
    window = hours.read(text)
    assert all(window.holds(_moment(word)) for word in inside)
    assert not any(window.holds(_moment(word)) for word in outside)


@pytest.mark.parametrize(
    "text", ["", "22-6", "25:00-26:00", "10:60-11:00", "10:00-10:00", "24:00-01:00", "may 1:00-2:00"]
)
def test_what_is_not_hours_is_named(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        hours.read(text)
    assert "hours" in error.value.found


@given(
    st.text(max_size=30) | st.from_regex(r"([a-z,-]{3,9} )?[0-9]{1,2}:[0-9]{2} ?- ?[0-9]{1,2}:[0-9]{2}", fullmatch=True)
)
def test_any_text_is_a_window_or_is_named(text: str) -> None:
    window = window_or_error(text)
    if isinstance(window, ConfigError):
        assert window.found.startswith("hours ")
        assert window.allowed
        return
    # Each of its days it holds for its minutes, of which the last may lie in the day after.
    assert window.days
    assert 0 < window.minutes <= 1440
    week = [MONDAY + timedelta(minutes=minute) for minute in range(0, 7 * 1440, 15)]
    begins = [MONDAY + timedelta(days=day, minutes=window.begin) for day in window.days]
    assert all(window.holds(begin) for begin in begins)
    assert any(window.holds(moment) for moment in week) or window.minutes < 15


def window_or_error(text: str) -> hours.Window | ConfigError:
    try:
        return hours.read(text)
    except ConfigError as error:
        return error


def test_a_night_in_which_the_clocks_change_is_that_of_the_wall() -> None:
    """What counts is what the clock on the wall shows: an hour that it repeats is had twice."""
    window = hours.read("sat 22:00-06:00")
    assert all(window.holds(datetime(2026, 3, 29, hour, 30, tzinfo=UTC)) for hour in (1, 3, 5))
    assert all(window.holds(datetime(2026, 10, 25, 2, 30, tzinfo=UTC, fold=fold)) for fold in (0, 1))


def test_the_next_opening() -> None:
    night = ["mon-fri 22:00-06:00"]
    assert hours.opening([], MONDAY) == MONDAY
    assert hours.opening(night, _moment("mon 12:00")) == _moment("mon 22:00")
    assert hours.opening(night, _moment("tue 02:00")) == _moment("tue 02:00")
    # After Friday's night comes Monday's.
    assert hours.opening(night, _moment("sat 12:00")) == _moment("mon 22:00") + timedelta(days=7)


@given(st.integers(0, 1439), st.integers(0, 1440), st.integers(0, 7 * 1440 - 1))
def test_the_opening_is_the_first_minute_that_holds(begin: int, end: int, minute: int) -> None:
    if begin == end:
        return
    text = f"{begin // 60}:{begin % 60:02}-{end // 60}:{end % 60:02}"
    now, window = MONDAY + timedelta(minutes=minute), hours.read(text)
    opens = hours.opening([text], now)
    assert opens is not None
    minutes = [now + timedelta(minutes=step) for step in range(int((opens - now).total_seconds() // 60))]
    assert window.holds(opens)
    assert not any(window.holds(moment) for moment in minutes)


def _moment(text: str) -> datetime:
    day, time = text.split()
    hour, minute = map(int, time.split(":"))
    return MONDAY + timedelta(days=hours.DAYS.index(day), hours=hour, minutes=minute)
