"""What happens to values on their way out, in one visible line: values → vector → masked, or values → sealed.

Clipping and the noise of DP-SGD and of small releases come before, where the data is (rounds.py); noise in the sum
comes here, on the grid that the sum is made on. The server's view of a masked or sealed reply is its size; of values
outside both, the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsite.client.sums.terms import ZERO
from fedsite.client.work import noise
from fedsite.protocol import sealing
from fedsite.protocol.errors import RefusalCode, TrustError
from fedsite.protocol.messages import WEIGHT, Header, ReplyHeader
from fedsite.protocol.plan import ProtectionPlan
from fedsite.protocol.secagg import fixedpoint
from fedsite.protocol.secagg.manifest import Manifest

if TYPE_CHECKING:
    from fedsite.privacy.sampling import Source

Values = Mapping[str, NDArray[np.generic]]


def vector(values: Values, manifest: Manifest, source: Source) -> bytes:
    """What this site adds to a sum: weighted, rounded to the sum's grid, noised where the plan says so.

    Args:
        values: by name, as client/work/rounds.py makes them.
        manifest: of the sum, checked against the plan (terms.check).
        source: the site's randomness, for noise in the sum.

    Returns:
        uint32, little-endian, `manifest.words` of them.

    Raises:
        IntegrityError: a value is missing or has another shape than its field.
    """
    weight, given = _weighted(values, manifest)
    steps = noised(given, weight, manifest, source)
    return fixedpoint.to_ring(steps).astype("<u4", copy=False).tobytes()


def noised(values: Values, weight: float, manifest: Manifest, source: Source) -> NDArray[np.int64]:
    """The values in whole grid steps, with this site's part of the noise of the sum.

    Args:
        values: one for each field.
        weight: of this site, in (0, 1].
        manifest: of the sum.
        source: the site's randomness.

    Returns:
        [word]
    """
    if manifest.noise:
        return noise.noised(values, manifest, source)
    return fixedpoint.encode(manifest.fields, values, manifest.scales, sites=manifest.sites, weight=weight)


def protect(values: bytes, header: Header, protection: ProtectionPlan) -> dict[str, bytes]:
    """The blob that carries values outside a secure sum.

    Args:
        values: encoded arrays (weights.encode).
        header: the instruction's.
        protection: as the accepted plan says.

    Raises:
        TrustError: the plan wants values sealed and the instruction brings no key to seal them for.
    """
    if protection.mode == "none":
        return {"values": values}
    if protection.mode != "sealed" or not header.run_key:
        raise TrustError("the instruction brings no run key", allowed=protection.mode, refusal=RefusalCode.PROTECTION)
    return {"sealed": sealing.seal(values, header.run_key, sealing.context(header), header.site_id)}


def reply_header(
    header: Header,
    instruction: str,
    *,
    code: RefusalCode | None = None,
    failed: bool = False,
    body: Mapping[str, Any] = {},
) -> ReplyHeader:
    """The clear part of a reply: ok without a code, refused or failed with one."""
    return ReplyHeader(
        kind=header.kind,
        federation=header.federation,
        site_id=header.site_id,
        run_id=header.run_id,
        round=header.round,
        attempt=header.attempt,
        instruction=instruction,
        outcome="ok" if code is None else ("failed" if failed else "refused"),
        code=code,
        body=dict(body),
    )


def _weighted(values: Values, manifest: Manifest) -> tuple[float, dict[str, NDArray[np.generic]]]:
    """This site's weight, and its values as the fields take them: `weight` is 1, so that the sum of it is Σw."""
    given = dict(values)
    weight = 1.0
    if any(field.weighted for field in manifest.fields):
        weight = fixedpoint.weight_of(int(np.asarray(given[WEIGHT]).item()), manifest.examples_max)
        given[WEIGHT] = np.ones(1)
    for field in manifest.fields:
        if field.name.startswith(ZERO) and field.name not in given:
            given[field.name] = np.zeros(field.shape)
    return weight, given
