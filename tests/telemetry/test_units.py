"""Units in headers, and conversions there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.telemetry import units


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("oil [degF]", ("oil", "degF")),
        ("oil temp (°C)", ("oil temp", "°C")),
        ("oil(motor)", ("oil(motor)", None)),
        ("oil[furlong]", ("oil", "furlong")),
        ("oil", ("oil", None)),
        ("[bar]", ("[bar]", None)),
    ],
)
def test_headers(header, expected):
    assert units.split_header(header) == expected


@pytest.mark.parametrize(
    ("value", "found", "wanted", "expected"),
    [
        (212, "degF", "degC", 100),
        (0, "degC", "K", 273.15),
        (1, "bar", "psi", 14.5038),
        (36, "km/h", "m/s", 10),
        (3600, "m3/h", "L/s", 1000),
        (50, "%", "1", 0.5),
        (7, "celsius", "°C", 7),
    ],
)
def test_conversions(value, found, wanted, expected):
    factor, offset = units.conversion(found, wanted)
    assert value * factor + offset == pytest.approx(expected, rel=1e-5)


def test_there_is_none_between_quantities_or_for_the_unknown():
    assert units.conversion("bar", "degC") is None
    assert units.conversion("furlong", "m/s") is None
    assert units.conversion("furlong", "furlong") == (1.0, 0.0)
    assert units.convertible("degC") == ["degC", "degF", "K", "degR"]


@given(st.sampled_from(sorted(units._UNITS)), st.floats(-1e6, 1e6))
def test_there_and_back(unit, value):
    for other in units.convertible(unit):
        there, back = units.conversion(unit, other), units.conversion(other, unit)
        found = (value * there[0] + there[1]) * back[0] + back[1]
        assert found == pytest.approx(value, rel=1e-9, abs=1e-6)
