"""Canonical JSON against RFC 8785, and refusal of everything that is not strictly JSON."""

import contextlib
import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.protocol import documents
from fedsite.protocol.errors import DocumentError, RefusalCode

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-documents.MAX_INTEGER, documents.MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


# RFC 8785 appendix B: IEEE 754 bits and the text.
@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("ffefffffffffffff", "-1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("41b3de4355555555", "333333333.3333333"),
        ("41b3de4355555556", "333333333.3333334"),
        ("41b3de4355555557", "333333333.33333343"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_numbers_of_rfc_8785(bits: str, text: str) -> None:
    value = struct.unpack(">d", bytes.fromhex(bits))[0]
    assert documents.canonical(value) == text.encode()


def test_example_of_rfc_8785_section_3_2_2() -> None:
    text = (
        r'{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],'
        r' "string": "\u20ac$\u000F\u000aA\u0027\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}'
    )
    expected = (
        r'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        r'"string":"€$\u000f\nA' + "'" + r'B\"\\\\\"/"}'
    )
    assert documents.canonical(documents.parse(text.encode())) == expected.encode("utf-8")


def test_sorting_of_rfc_8785_section_3_2_3() -> None:
    text = rb'{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}'
    found = json.loads(documents.canonical(documents.parse(text)))
    assert list(found.values()) == [2, 4, 6, 7, 1, 5, 3]


@given(values)
def test_parse_reads_what_canonical_wrote(value: object) -> None:
    data = documents.canonical(value)
    assert documents.canonical(documents.parse(data)) == data
    assert documents.parse(data) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_every_bit(value: float) -> None:
    assert float(documents.canonical(value)) == value


def test_a_large_float_that_prints_as_an_integer_comes_back_as_a_float() -> None:
    value = documents.parse(documents.canonical(2.0**60))
    assert value == 2.0**60
    assert isinstance(value, float)


def test_numpy_numbers_are_numbers() -> None:
    assert documents.canonical([np.float64(0.25), np.float64(1e22)]) == b"[0.25,1e+22]"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e999",
        b"-1e999",
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"a":1}}',
        b"9007199254740993",
        b"-9007199254740993",
        b"10000000000000000000000",
        b"1" + b"0" * 5000,
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b"[" * 66 + b"]" * 66,
        b"[" * 100_000,
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b"{}x",
        b"\xef\xbb\xbf{}",
    ],
)
def test_parse_refuses(data: bytes) -> None:
    with pytest.raises(DocumentError):
        documents.parse(data)


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_parse_raises_nothing_else(data: bytes) -> None:
    with contextlib.suppress(DocumentError):
        documents.canonical(documents.parse(data))


def test_parse_refuses_a_large_document_before_reading_it() -> None:
    with pytest.raises(DocumentError, match="at most 4 bytes"):
        documents.parse(b"not even JSON", limit=4)


def nested(depth: int) -> list:
    return [] if depth == 0 else [nested(depth - 1)]


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, 2**53, {1: 2}, object(), {"a": {1, 2}}, b"x", "\ud800", {"\ud800": 1}, nested(70)]
)
def test_canonical_refuses(value: object) -> None:
    with pytest.raises(DocumentError):
        documents.canonical(value)


def test_schema_of_another_major_version_says_to_upgrade() -> None:
    with pytest.raises(DocumentError) as raised:
        documents.document(b'{"schema":"fedsite.plan/2"}', "fedsite.plan/1")
    assert "upgrade" in raised.value.next_step
    assert raised.value.refusal is RefusalCode.PROTOCOL_VERSION


@pytest.mark.parametrize("data", [b"[]", b"1", b"{}", b'{"schema":null}', b'{"schema":"fedsite.task/1"}'])
def test_schema_of_another_document_is_refused(data: bytes) -> None:
    with pytest.raises(DocumentError, match=r"fedsite\.plan/1"):
        documents.document(data, "fedsite.plan/1")


def test_digest_does_not_depend_on_order() -> None:
    assert documents.digest({"a": 1, "b": 2}) == documents.digest({"b": 2, "a": 1.0})
