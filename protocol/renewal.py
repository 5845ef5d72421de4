"""What an enrolled site says of its own certificate: that it asks for the next one, or that it leaves.

Either travels over TLS with the certificate in force, and is signed by the site's identity: a stolen TLS key alone
neither keeps itself in force nor takes a site out, and neither does a stolen identity. A statement names its time and
the certificate it travels under. The time has to be later than that of the last one taken: nothing old counts again.
The answer to a request is the same as at enrolment (`protocol.enrolment.Answer`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeVar

from fedsite.protocol import envelope, ids, instants, shape
from fedsite.protocol.documents import check_schema
from fedsite.protocol.enrolment import MAX_BYTES
from fedsite.protocol.errors import RefusalCode, TrustError
from fedsite.protocol.keys import SigningKey, VerifyKey

RENEWAL_SCHEMA: Final = "fedsite.renew/1"
DEPARTURE_SCHEMA: Final = "fedsite.leave/1"
AHEAD = timedelta(seconds=5)  # a site's clock may be ahead of the server's, as in Flower's own signatures
BEHIND = timedelta(minutes=5)
_RENEWAL_LABEL = "fedsite/sig/renew/1"
_DEPARTURE_LABEL = "fedsite/sig/leave/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A site asks for its next certificate, for a key it has just made."""

    schema: Literal["fedsite.renew/1"] = RENEWAL_SCHEMA
    federation: str  # id, hex
    site_id: str  # hex
    certificate: str  # SHA-256 of the DER of the certificate it travels under, hex
    request: str  # PEM of the certificate request for the new TLS key
    time: str  # RFC 3339

    def __post_init__(self) -> None:
        _check_fields(self.federation, self.site_id, self.certificate, self.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A site leaves: its own revocation."""

    schema: Literal["fedsite.leave/1"] = DEPARTURE_SCHEMA
    federation: str  # id, hex
    site_id: str  # hex
    certificate: str  # as above
    time: str  # RFC 3339

    def __post_init__(self) -> None:
        _check_fields(self.federation, self.site_id, self.certificate, self.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Who may say it, from the server's own record of the certificate that TLS has checked."""

    federation: str  # id, hex
    identity: VerifyKey
    certificate: str  # SHA-256 of its DER, hex
    last: str | None = None  # time of the last statement that was taken


S = TypeVar("S", Renewal, Departure)


def sign(statement: Renewal | Departure, key: SigningKey) -> bytes:
    """The body to send."""
    label = _RENEWAL_LABEL if isinstance(statement, Renewal) else _DEPARTURE_LABEL
    return envelope.wrap(label, shape.plain(statement), key)


def open_renewal(data: bytes, speaker: Speaker, now: datetime) -> Renewal:
    """Read a request for the next certificate.

    Raises:
        DocumentError: not one.
        TrustError: not signed by this site, about another site or certificate, too old, or said before.
    """
    return _checked(shape.read(Renewal, _unwrap(data, _RENEWAL_LABEL, RENEWAL_SCHEMA, speaker)), speaker, now)


def open_departure(data: bytes, speaker: Speaker, now: datetime) -> Departure:
    """Read a site's own revocation; raises as `open_renewal`."""
    return _checked(shape.read(Departure, _unwrap(data, _DEPARTURE_LABEL, DEPARTURE_SCHEMA, speaker)), speaker, now)


def _unwrap(data: bytes, label: str, schema: str, speaker: Speaker) -> Mapping[str, Any]:
    value = envelope.unwrap(label, data, speaker.identity, "site's statement", limit=MAX_BYTES)
    check_schema(value, schema)
    return value


def _checked(statement: S, speaker: Speaker, now: datetime) -> S:
    if (statement.federation, statement.site_id) != (speaker.federation, speaker.identity.id):
        raise TrustError(
            f"a statement about site {statement.site_id} of federation {statement.federation}",
            allowed=f"site {speaker.identity.id} of {speaker.federation}, whose certificate this is",
            refusal=RefusalCode.WRONG_SITE,
        )
    time = instants.read(statement.time)
    if not now - BEHIND <= time <= now + AHEAD + timedelta(seconds=1):  # documents hold whole seconds
        raise TrustError(
            f"a statement of {statement.time}, while it is {instants.text(now)} here",
            allowed=f"at most {AHEAD.total_seconds():.0f} s ahead and {BEHIND.total_seconds():.0f} s behind",
            next_step="switch time synchronisation on (timedatectl set-ntp true)",
            refusal=RefusalCode.EXPIRED,
        )
    if statement.certificate != speaker.certificate or (speaker.last and time <= instants.read(speaker.last)):
        raise TrustError(
            f"a statement of {statement.time} that was said before, or under another certificate",
            allowed="a new one, under the certificate it names",
            next_step="nothing: the agent asks again later",
            refusal=RefusalCode.REPLAYED,
        )
    return statement


def _check_fields(federation: str, site_id: str, certificate: str, time: str) -> None:
    ids.id_bytes(federation)
    ids.id_bytes(site_id)
    ids.hash_bytes(certificate)
    instants.read(time)
