"""Release manifests: what a device accepts, and everything it refuses."""

import dataclasses
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedsite.protocol import envelope, release, shape
from fedsite.protocol.errors import DocumentError, FedsiteError, IntegrityError, RefusalCode, TrustError
from fedsite.protocol.release import Golden, Manifest, Normalisation, Parity, Tensor

MODEL = b"onnx bytes"


def manifest(federation: str, **changes: Any) -> Manifest:
    inputs = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    fields: dict[str, Any] = {
        "version": "pump-0001",
        "federation": federation,
        "run_id": "01ARYZ6S410000000000000000",
        "plan_hash": "ab" * 32,
        "task": {"name": "pump"},
        "normalisation": Normalisation(mean=(0.5, 1.0), scale=(1.0, 2.0)),
        "fp32_bytes": 40,
        "parity": Parity(metric="rmse", fp32=13.9, int8=14.0),
        "golden": Golden(
            inputs=Tensor.pack(inputs), outputs=Tensor.pack(inputs.sum(axis=(1, 2), keepdims=True)), tolerance=1e-3
        ),
        "privacy": {"mode": "sample", "unit": "window", "delta": 1e-5, "epsilon": 7.9},
        "created": "2026-01-02T03:04:05Z",
    }
    return release.make(MODEL, **(fields | changes))


def test_round_trip(pumps: Any, now: datetime) -> None:
    made = manifest(pumps[0].id)
    data = release.sign(made, pumps[1])
    found = release.verify(data, pumps[0], now, expected_hash=release.manifest_hash(data))
    assert found == made
    release.check_model(found, MODEL)
    assert found.golden.outputs.unpack().tolist() == [[[15.0]], [[51.0]]]


@given(
    arrays.arrays(st.sampled_from([np.float32, np.int8, np.uint8, np.int32, np.int64]), arrays.array_shapes(min_side=0))
)
def test_unpack_is_the_inverse_of_pack(array: np.ndarray) -> None:
    found = Tensor.pack(array).unpack()
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()


def test_layout_and_byte_order_do_not_matter() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert Tensor.pack(np.asfortranarray(array).astype(">f4")) == Tensor.pack(array)


@pytest.mark.parametrize(
    ("kind", "size", "text"),
    [("float32", (2,), "AAAA"), ("float32", (-1,), ""), ("float32", (1,), "not base64"), ("int8", (2**40,), "AAAA")],
)
def test_damaged_arrays_are_refused(kind: Any, size: tuple[int, ...], text: str) -> None:
    with pytest.raises(FedsiteError):
        Tensor(dtype=kind, shape=size, data=text)


def test_other_dtypes_do_not_travel() -> None:
    with pytest.raises(DocumentError):
        Tensor.pack(np.zeros(1))


def refused(data: bytes, federation: Any, now: datetime, **options: Any) -> FedsiteError:
    with pytest.raises(FedsiteError) as raised:
        release.verify(data, federation, now, **options)
    assert raised.value.refusal is RefusalCode.RELEASE_INVALID
    return raised.value


def test_another_federation_is_refused(pumps: Any, wards: Any, now: datetime) -> None:
    assert isinstance(refused(release.sign(manifest(pumps[0].id), wards[1]), pumps[0], now), TrustError)
    assert "of federation" in str(refused(release.sign(manifest(wards[0].id), pumps[1]), pumps[0], now))


def test_another_manifest_than_the_pinned_is_refused(pumps: Any, now: datetime) -> None:
    older = release.sign(manifest(pumps[0].id, version="pump-0000"), pumps[1])
    pinned = release.manifest_hash(release.sign(manifest(pumps[0].id), pumps[1]))
    assert isinstance(refused(older, pumps[0], now, expected_hash=pinned), IntegrityError)


def test_altered_manifests_are_refused(pumps: Any, now: datetime) -> None:
    data = release.sign(manifest(pumps[0].id), pumps[1])
    for old, new in ((b"pump-0001", b"pump-0002"), (b'"epsilon":7.9', b'"epsilon":0.1'), (b'"signed"', b'"sighed"')):
        assert old in data
        refused(data.replace(old, new), pumps[0], now)
    for cut in (b"", data[:-1], data + b"x", b"{}", b"[" * 1000):
        refused(cut, pumps[0], now)


def test_expiry(pumps: Any, now: datetime) -> None:
    data = release.sign(manifest(pumps[0].id, expires="2026-01-03T00:00:00Z"), pumps[1])
    release.verify(data, pumps[0], now)
    assert "expired" in str(refused(data, pumps[0], now + timedelta(days=1)))


def test_an_unknown_schema_says_to_upgrade(pumps: Any, now: datetime) -> None:
    value = shape.plain(manifest(pumps[0].id)) | {"schema": "fedsite.release/2", "new": 1}
    error = refused(envelope.wrap("fedsite/sig/release/1", value, pumps[1]), pumps[0], now)
    assert "upgrade" in error.next_step


def test_another_model_is_refused(pumps: Any) -> None:
    made = manifest(pumps[0].id)
    for model in (b"", MODEL[:-1], MODEL + b"x", MODEL[:-1] + b"X"):
        with pytest.raises(IntegrityError) as raised:
            release.check_model(made, model)
        assert raised.value.refusal is RefusalCode.RELEASE_INVALID


@pytest.mark.parametrize("version", ["", "..", "../x", "a/b", ".hidden", "a\n", "x" * 65, "é"])
def test_a_version_is_a_safe_name(version: str, pumps: Any) -> None:
    with pytest.raises(DocumentError):
        manifest(pumps[0].id, version=version)


def test_normalisation_and_golden_vectors_fit_together(pumps: Any) -> None:
    for mean, scale in (((1.0,), ()), ((1.0,), (0.0,)), ((1.0,), (-1.0,))):
        with pytest.raises(DocumentError):
            Normalisation(mean=mean, scale=scale)
    golden = manifest(pumps[0].id).golden
    with pytest.raises(DocumentError):
        dataclasses.replace(golden, outputs=Tensor.pack(np.zeros((3, 1), np.float32)))
    with pytest.raises(DocumentError):
        dataclasses.replace(golden, tolerance=-1.0)
