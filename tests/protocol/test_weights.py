"""Arrays travel bit for bit, whatever their layout, and nothing but arrays is taken."""

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol import weights
from fedsite.protocol.errors import DocumentError, IntegrityError, RefusalCode

LIMIT = 1 << 20
dtypes = st.sampled_from(["float32", "float64", "float16", "int8", "uint8", "int32", "uint32", "int64", "bool"])
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    shape = draw(shapes)
    count = int(np.prod(shape))
    numbers = draw(st.lists(st.integers(0, 100), min_size=count, max_size=count))
    return np.array(numbers, dtype=draw(dtypes)).reshape(shape)


names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=6)


@given(st.dictionaries(names, arrays(), max_size=5))
def test_decode_is_the_inverse_of_encode(values: dict[str, np.ndarray]) -> None:
    data = weights.encode(values)
    found = weights.decode(data, limit=LIMIT)
    assert list(found) == sorted(values)
    for name, value in values.items():
        assert found[name].dtype == value.dtype
        assert np.array_equal(found[name], value)
        assert found[name].shape == value.shape
    assert weights.encode(found) == data


def test_bytes_depend_on_values_only() -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    same = {"b": np.asfortranarray(value).astype(">f4"), "a": value[::-1][::-1]}
    assert weights.encode(same) == weights.encode({"a": value, "b": value})
    assert weights.digest(same) == weights.digest({"a": value, "b": value})
    assert weights.digest(same) != weights.digest({"a": value, "b": value + 1})


def test_layout_is_safetensors() -> None:
    data = weights.encode({"w": np.array([1.0, 2.0], np.float32)})
    length = struct.unpack("<Q", data[:8])[0]
    assert json.loads(data[8 : 8 + length]) == {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    assert data[8 + length :] == struct.pack("<2f", 1, 2)


@pytest.mark.parametrize("value", [np.array(["text"]), np.array([object()]), np.array([1j]), np.array(["2026"], "M8")])
def test_other_kinds_of_arrays_are_refused(value: np.ndarray) -> None:
    with pytest.raises(DocumentError):
        weights.encode({"x": value})


@pytest.mark.parametrize("name", ["", "__metadata__", "a\nb", "x" * 600, "\ud800"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(DocumentError):
        weights.encode({name: np.zeros(1)})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_only_finite_numbers_unless_asked(bad: float) -> None:
    data = weights.encode({"layer.weight": np.array([0.0, bad])})
    with pytest.raises(IntegrityError, match=r"layer\.weight"):
        weights.decode(data, limit=LIMIT)
    assert not np.isfinite(weights.decode(data, limit=LIMIT, finite=False)["layer.weight"]).all()


def test_the_limit_comes_first() -> None:
    with pytest.raises(IntegrityError) as raised:
        weights.decode(b"anything", limit=7)
    assert raised.value.refusal is RefusalCode.TOO_LARGE


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04N.",  # a pickle
        struct.pack("<Q", 2**63) + b"{}",
        safetensors(b"[]"),
        safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
        safetensors({"w": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]}}, b"12345678"),
        safetensors({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234"),
        safetensors({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
        safetensors({"w": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}, b"12345678"),
        safetensors({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
        safetensors({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, b"1234"),
        safetensors({"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, b"12345678"),
    ],
)
def test_damaged_files_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        weights.decode(data, limit=LIMIT)


@given(st.data())
def test_damage_raises_nothing_else(data: st.DataObject) -> None:
    good = weights.encode({"a": np.arange(4, dtype=np.float32), "b": np.ones((2, 2), np.int8)})
    cut = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if cut:
            cut[data.draw(st.integers(0, len(cut) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(IntegrityError):
        weights.decode(bytes(cut), limit=LIMIT)
