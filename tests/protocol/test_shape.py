"""Documents into dataclasses and back; every mistake is named by its path."""

import contextlib
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol import shape
from fedsite.protocol.errors import DocumentError, FedsiteError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    low: float
    high: float | None = None

    def __post_init__(self) -> None:
        if self.high is not None and self.high < self.low:
            raise DocumentError(f"high is {self.high}", allowed="low or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    name: str
    count: int = 1
    on: bool = False
    kind: Literal["a", "b"] = "a"
    bounds: tuple[Bound, ...] = ()
    options: dict[str, float] = field(default_factory=dict)
    extra: Any = None
    limit: int | str | None = None


numbers = st.floats(allow_nan=False, allow_infinity=False)
bounds = st.builds(Bound, low=numbers, high=st.none())
samples = st.builds(
    Sample,
    name=st.text(),
    count=st.integers(),
    on=st.booleans(),
    kind=st.sampled_from(["a", "b"]),
    bounds=st.lists(bounds, max_size=3).map(tuple),
    options=st.dictionaries(st.text(), numbers, max_size=3),
    extra=st.none() | st.lists(st.integers(), max_size=2),
    limit=st.none() | st.integers() | st.text(),
)


@given(samples)
def test_read_is_the_inverse_of_plain(sample: Sample) -> None:
    assert shape.read(Sample, shape.plain(sample)) == sample


def test_defaults_fill_what_is_missing() -> None:
    assert shape.read(Sample, {"name": "x"}) == Sample(name="x")


def test_a_float_field_takes_an_integer() -> None:
    value = shape.read(Bound, {"low": 3}).low
    assert value == 3.0
    assert isinstance(value, float)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "missing key name"),
        ({"name": "x", "cuont": 1}, "did you mean count"),
        ({"name": 1}, "name is 1"),
        ({"name": "x", "count": True}, "count is True"),
        ({"name": "x", "count": 1.5}, r"count is 1\.5"),
        ({"name": "x", "on": 1}, "on is 1"),
        ({"name": "x", "kind": "c"}, "kind is 'c'"),
        ({"name": "x", "kind": ["a"]}, "kind is"),
        ({"name": "x", "bounds": [{"low": 1}, {"low": "1"}]}, r"bounds\[1\]\.low"),
        ({"name": "x", "bounds": [{"low": 2, "high": 1}]}, r"bounds\[0\]: high is 1"),
        ({"name": "x", "bounds": "ab"}, "bounds is 'ab'"),
        ({"name": "x", "bounds": [1]}, r"bounds\[0\] is 1"),
        ({"name": "x", "options": {"a": None}}, r"options\.a is None"),
        ({"name": "x", "options": []}, "options is"),
        ({"name": "x", "options": {"a": float("nan")}}, "finite"),
        ({"name": "x", "options": {"a": float("inf")}}, "finite"),
        ({"name": "x", "options": {"a": 10**400}}, "finite"),
        ({"name": "x", "limit": 1.5}, "limit is"),
        ([], "an object"),
        (None, "an object"),
    ],
)
def test_mistakes_are_named_by_their_path(value: object, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        shape.read(Sample, value)


def test_a_huge_value_does_not_fill_the_message() -> None:
    with pytest.raises(DocumentError) as raised:
        shape.read(Sample, {"name": ["x"] * 100_000})
    assert len(str(raised.value)) < 300


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Sample.__dataclass_fields__, "other"]), anything, max_size=5))
def test_read_raises_nothing_else(value: dict) -> None:
    with contextlib.suppress(FedsiteError):
        shape.read(Sample, value)
