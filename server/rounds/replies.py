"""Reading a site's reply: decryption, size, names, shapes, finite values. All of it before anything is counted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from fedsite.protocol import sealing, weights
from fedsite.protocol.errors import IntegrityError, RefusalCode, TrustError
from fedsite.protocol.messages import WEIGHT, Frame, Header, ReplyHeader
from fedsite.protocol.secagg import advert

SEALED = "sealed"
VALUES = "values"
ADVERT = "advert"  # keys for a sum to come
LARGEST_WEIGHT = 1e9  # examples a site may say it has
_SLACK = 64 << 10  # bytes of safetensors header

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the values of a reply must be: floating-point arrays of these names and shapes, and nothing else."""

    required: Mapping[str, Shape] = field(default_factory=dict)
    optional: Mapping[str, Shape] = field(default_factory=dict)
    weight: float | None = None  # the only value allowed for `weight`; None: any number of examples

    @property
    def limit(self) -> int:
        """The largest encoding of such values, in bytes."""
        shapes = {**self.required, **self.optional}
        names = sum(len(name) for name in shapes)
        return sum(8 * int(np.prod(shape)) for shape in shapes.values()) + 2 * names + 128 * len(shapes) + _SLACK


def read_raw(frame: Frame, reply: ReplyHeader, sizes: Mapping[str, int], *, next_sum: bool = False) -> dict[str, bytes]:
    """The blobs of a reply that are bytes of known lengths: those of a stage of a secure sum, and a riding advert.

    Args:
        frame: the reply.
        reply: its header.
        sizes: bytes of each blob that must be there.
        next_sum: whether keys for a sum to come were asked for too; a site may do without.

    Raises:
        IntegrityError: one is missing, or has another length.
        TrustError: values that nobody masked.
    """
    clear = {VALUES, SEALED} & set(reply.blobs)
    if sizes and clear:
        raise TrustError(f"blobs {sorted(clear)}", allowed=f"{sorted(sizes)}", refusal=RefusalCode.PROTECTION)
    wanted = {**sizes, ADVERT: advert.SIZE} if next_sum and ADVERT in reply.blobs else sizes
    for name, size in wanted.items():
        found = len(frame.blobs[name]) if name in reply.blobs else None
        if found != size:
            code = RefusalCode.TOO_LARGE if found is not None and found > size else RefusalCode.MALFORMED
            what = f"{found} bytes" if found is not None else "missing"
            raise IntegrityError(f"blob {name} is {what}", allowed=f"{size} bytes", refusal=code)
    return {name: frame.blobs[name] for name in wanted}


def read_values(
    frame: Frame,
    reply: ReplyHeader,
    asked: Header,
    key: sealing.RunKey | None,
    expected: Expected,
    *,
    without: Collection[str] = (),
) -> weights.Arrays:
    """Open the values of a reply whose signature has been checked (`signing.open_reply`).

    Args:
        frame: the reply.
        reply: its header.
        asked: the header of the instruction it answers.
        key: the run's key; None unless protection is sealed.
        expected: what the values must be.
        without: names of blobs that were read by `read_raw`.

    Raises:
        IntegrityError: missing, too large, not what was expected, not finite.
        TrustError: values in the clear where the plan says sealed.
    """
    blob = SEALED if key is not None else VALUES
    found = set(reply.blobs) - set(without)
    wanted = {blob} if expected.required or (found and not without) else set()
    if found != wanted:
        kind = TrustError if found == {VALUES} else IntegrityError
        raise kind(f"blobs {sorted(found)}", allowed=f"{sorted(wanted)}", refusal=RefusalCode.PROTECTION)
    if not wanted:
        return {}
    data = frame.blobs[blob]
    if key is not None:
        data = key.open(data, sealing.context(asked), reply.site_id, limit=expected.limit)
    values = weights.decode(data, limit=expected.limit)
    check(values, expected)
    return values


def check(values: weights.Arrays, expected: Expected) -> None:
    """Check names, shapes, types and the weight.

    Raises:
        IntegrityError: the first thing that is wrong.
    """
    for name in expected.required:
        if name not in values:
            raise IntegrityError(f"array {name} is missing", allowed=f"{len(expected.required)} named arrays")
    for name, value in values.items():
        shape = expected.required.get(name, expected.optional.get(name))
        if shape is None:
            raise IntegrityError(f"unexpected array {name!r:.80}", allowed="the arrays that were asked for")
        if value.shape != shape or value.dtype.kind != "f":
            raise IntegrityError(f"array {name} is {value.dtype} {list(value.shape)}", allowed=f"float {list(shape)}")
    if WEIGHT in expected.required:
        weight = float(values[WEIGHT][0])
        if expected.weight is not None and weight != expected.weight:
            raise IntegrityError(f"weight {weight}", allowed=f"{expected.weight}: examples are not counted here")
        if not 0 < weight <= LARGEST_WEIGHT:
            raise IntegrityError(f"weight {weight}", allowed=f"above 0, at most {LARGEST_WEIGHT:g}")
