"""fedsite.release/1: what a device must know of a model before it runs it, signed by the federation.

The manifest pins the model's bytes by size and SHA-256, carries the task it was made for, and inputs with the outputs
that the installed runtime must reproduce (the golden self-test). Arrays in it are base64 of little-endian values.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol import envelope, ids, instants, shape
from fedsite.protocol.documents import check_schema
from fedsite.protocol.errors import DocumentError, FedsiteError, IntegrityError, RefusalCode, TrustError
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey, unbase64

SCHEMA: Final = "fedsite.release/1"
MAX_BYTES = 8 << 20  # bytes of a signed manifest
MAX_MODEL = 64 << 20  # bytes of a model: a device holds it in memory
_LABEL = "fedsite/sig/release/1"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Dtype = Literal["float32", "int8", "uint8", "int32", "int64"]
_DTYPES = get_args(Dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One array in a document."""

    dtype: Dtype
    shape: tuple[int, ...]
    data: str  # base64, little-endian, C order

    def __post_init__(self) -> None:
        raw = unbase64(self.data, "array")
        size = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        if any(length < 0 for length in self.shape) or len(raw) != size:
            raise DocumentError(f"array of shape {list(self.shape)} in {len(raw)} bytes", allowed=f"{size} bytes")

    @classmethod
    def pack(cls, array: NDArray[Any]) -> Tensor:
        """From an array of one of the dtypes above.

        Raises:
            DocumentError: another dtype.
        """
        if array.dtype.name not in _DTYPES:
            raise DocumentError(f"array of {array.dtype}", allowed=", ".join(_DTYPES))
        raw = np.require(array, dtype=array.dtype.newbyteorder("<"), requirements="C").tobytes()
        text = base64.b64encode(raw).decode("ascii")
        return cls(dtype=array.dtype.name, shape=tuple(array.shape), data=text)  # type: ignore[arg-type]

    def unpack(self) -> NDArray[Any]:
        """The array, read-only: the inverse of `pack`."""
        kind = np.dtype(self.dtype).newbyteorder("<")
        return np.frombuffer(unbase64(self.data, "array"), kind).reshape(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Inputs, and the outputs that the int8 model gave where it was made. Synthetic: never a site's data."""

    inputs: Tensor  # [n, time, feature] float32, normalised
    outputs: Tensor  # [n, …] float32
    tolerance: float  # largest absolute difference of an output between two machines

    def __post_init__(self) -> None:
        if not self.inputs.shape or not self.outputs.shape or self.inputs.shape[0] != self.outputs.shape[0]:
            found = f"{list(self.inputs.shape)} inputs for {list(self.outputs.shape)} outputs"
            raise DocumentError(found, allowed="as many outputs as inputs")
        if not 0 <= self.tolerance < math.inf:
            raise DocumentError(f"tolerance {self.tolerance}", allowed="0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """x' = (x − mean) / scale, per feature."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.scale) or any(not value > 0 for value in self.scale):
            found = f"{len(self.mean)} means, {len(self.scale)} scales"
            raise DocumentError(found, allowed="as many as features, every scale above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The metric of the model before and after quantization; None where it could not be measured."""

    metric: str
    fp32: float | None = None
    int8: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One release."""

    schema: Literal["fedsite.release/1"] = SCHEMA
    version: str  # names a directory
    federation: str  # id, hex
    run_id: str  # ULID
    plan_hash: str  # hex
    task: dict[str, Any]  # the whole task document
    normalisation: Normalisation
    model_sha256: str  # hex, of model.onnx
    bytes: int  # of model.onnx
    fp32_bytes: int
    parity: Parity
    threshold: float | None = None  # anomaly score above which a window is an alarm
    golden: Golden
    privacy: dict[str, Any] = field(default_factory=dict)  # unit, adjacency, delta, epsilon, mechanism; or mode none
    created: str  # RFC 3339
    expires: str = ""  # RFC 3339; empty: no end

    def __post_init__(self) -> None:
        check_version(self.version)
        ids.id_bytes(self.federation)
        ids.run_bytes(self.run_id)
        ids.hash_bytes(self.plan_hash)
        ids.hash_bytes(self.model_sha256)
        instants.read(self.created)
        if self.expires:
            instants.read(self.expires)
        if not 0 < self.bytes <= MAX_MODEL:
            raise DocumentError(f"model of {self.bytes} bytes", allowed=f"1 to {MAX_MODEL}")


def check_version(version: str) -> str:
    """A version as it may stand in a path.

    Raises:
        DocumentError: empty, too long, or with other characters.
    """
    if not _VERSION.fullmatch(version):
        allowed = "up to 64 letters, digits, '.', '_', '-', starting with a letter or digit"
        raise DocumentError(f"version {version!r:.80}", allowed=allowed)
    return version


def make(model: bytes, **fields: Any) -> Manifest:
    """A manifest of `model` (the ONNX file): its size and hash are taken from it, everything else is in `fields`.

    Raises:
        DocumentError: a field that a device would refuse.
    """
    return Manifest(model_sha256=hashlib.sha256(model).hexdigest(), bytes=len(model), **fields)


def sign(manifest: Manifest, key: SigningKey) -> bytes:
    """The bytes of manifest.json."""
    return envelope.wrap(_LABEL, shape.plain(manifest), key)


def manifest_hash(data: bytes) -> str:
    """What an `install` instruction pins: SHA-256 of manifest.json's bytes, hex."""
    return hashlib.sha256(data).hexdigest()


def verify(data: bytes, federation: Federation, now: datetime, *, expected_hash: str = "") -> Manifest:
    """Check and read manifest.json. The model's bytes are checked after it (`check_model`).

    Args:
        data: the file.
        federation: whose signature is asked for.
        now: UTC.
        expected_hash: what the instruction pinned; empty where there is none.

    Raises:
        TrustError: forged, expired, or of another federation.
        IntegrityError: not the manifest that was pinned.
        DocumentError: not of this schema.
    """
    try:
        return _verify(data, federation, now, expected_hash)
    except FedsiteError as error:
        error.refusal = RefusalCode.RELEASE_INVALID
        raise


def check_model(manifest: Manifest, model: bytes) -> None:
    """Check that `model` is the one the manifest pins.

    Raises:
        IntegrityError: another size or hash.
    """
    if len(model) != manifest.bytes:
        found = f"model of {len(model)} bytes"
        raise IntegrityError(found, allowed=f"{manifest.bytes} bytes", refusal=RefusalCode.RELEASE_INVALID)
    digest = hashlib.sha256(model).hexdigest()
    if digest != manifest.model_sha256:
        found = f"model with SHA-256 {digest}"
        raise IntegrityError(found, allowed=manifest.model_sha256, refusal=RefusalCode.RELEASE_INVALID)


def _verify(data: bytes, federation: Federation, now: datetime, expected_hash: str) -> Manifest:
    if expected_hash and manifest_hash(data) != expected_hash:
        raise IntegrityError(f"manifest with SHA-256 {manifest_hash(data)}", allowed=expected_hash)
    value = envelope.unwrap(_LABEL, data, federation.verify_key, "release manifest", limit=MAX_BYTES)
    check_schema(value, SCHEMA)
    manifest = shape.read(Manifest, value)
    if manifest.federation != federation.id:
        raise TrustError(f"release of federation {manifest.federation}", allowed=federation.id)
    if manifest.expires and now >= instants.read(manifest.expires):
        raise TrustError(
            f"release {manifest.version} expired at {manifest.expires}",
            allowed=f"a release that expires after {instants.text(now)}",
            next_step="ask the central team for a new release",
        )
    return manifest
