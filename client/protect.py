"""What happens to values on their way out, in one visible line: values → bytes → sealed → signed.

Clipping and noise come before, where the data is (client/work.py): nothing enters here that may not leave the site. The
server's view of a sealed reply is its size; of an unsealed one, the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedsite.protocol import sealing, signing
from fedsite.protocol.errors import RefusalCode, TrustError
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, Header, ReplyHeader
from fedsite.protocol.plan import ProtectionPlan


def protect(
    values: bytes,
    header: Header,
    instruction: str,
    protection: ProtectionPlan,
    key: SigningKey,
    *,
    body: Mapping[str, Any],
) -> Frame:
    """The reply to an instruction that was carried out.

    Args:
        values: encoded arrays (weights.encode); empty when there are none.
        header: the instruction's.
        instruction: SHA-256 of the instruction's header bytes, hex.
        protection: as the accepted plan says.
        key: the site's identity.
        body: what may travel readable by the server.

    Raises:
        TrustError: the plan wants values sealed and the instruction brings no key to seal them for.
    """
    blobs: dict[str, bytes] = {}
    if values and protection.mode == "sealed":
        if not header.run_key:
            raise TrustError("the instruction brings no run key", allowed="sealed", refusal=RefusalCode.PROTECTION)
        blobs["sealed"] = sealing.seal(values, header.run_key, sealing.context(header), header.site_id)
    elif values and protection.mode == "none":
        blobs["values"] = values
    elif values:
        raise TrustError("values outside a secure sum", allowed=protection.mode, refusal=RefusalCode.PROTECTION)
    return signing.sign_reply(reply_header(header, instruction, body=body), blobs, key)


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
