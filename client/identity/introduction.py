"""Meeting a server: the federation's document from one that nothing is believed of yet, then posts to the right one."""

from __future__ import annotations

import ssl
from datetime import datetime

import httpx

from fedsite.client.link.flower_client import http_client, site_tls, transport_error
from fedsite.protocol import instants
from fedsite.protocol.enrolment import MAX_BYTES, parse_offer, read_refusal
from fedsite.protocol.errors import FedsiteError, TrustError, UnreachableError
from fedsite.protocol.federation import Federation, host_port
from fedsite.protocol.tokens import Token

AHEAD_S = 5.0  # Flower's bounds for the time in a request's signature
BEHIND_S = 300.0
_ROUNDING_S = 1.5  # times in documents are whole seconds


def fetch_federation(token: Token, now: datetime) -> Federation:
    """The document the token pins, from whoever answers at its address; nothing secret is sent.

    Raises:
        TrustError: it is another federation's, or the clocks differ too much.
        UnreachableError: nobody answers.
    """
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE  # the digest in the token is the check
    host, port = host_port(token.address)
    try:
        with http_client(host, unverified, port) as http:
            answer = http.get(f"https://{token.address}/enrol")
            data = answer.content[: 4 * MAX_BYTES]
    except (httpx.HTTPError, OSError) as error:
        raise transport_error(error, token.address) from None
    if answer.status_code != httpx.codes.OK:
        raise UnreachableError(
            f"{token.address} answered with HTTP {answer.status_code}",
            next_step="check the address with the central team",
        )
    offer = parse_offer(data)
    federation = offer.read_federation()
    if federation.digest != token.federation:
        raise TrustError(
            f"{token.address} is federation {federation.name} ({federation.id}), not the one this token is for",
            allowed=f"a federation document with SHA-256 {token.federation[:16]}…",
            next_step="do not go on: ask the central team whether the server was set up anew, and for a new token",
        )
    _check_clock(instants.read(offer.time), now)
    return federation


def post(federation: Federation, path: str, body: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """The answer of the federation's server to one JSON document.

    Args:
        federation: whose authority the server has to be certified by.
        path: on its public port.
        body: what to send.
        tls: with this site's certificate, once it has one.

    Raises:
        UnreachableError: it does not answer.
        FedsiteError: what it refused with, in its words.
    """
    try:
        with http_client(federation.host, tls or site_tls(federation), federation.port) as http:
            answer = http.post(
                f"https://{federation.address}{path}", content=body, headers={"content-type": "application/json"}
            )
    except (httpx.HTTPError, OSError) as error:
        raise transport_error(error, federation.address) from None
    if answer.status_code == httpx.codes.OK:
        return answer.content
    refused: FedsiteError | None = read_refusal(answer.content)
    if refused is None and answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        refused = TrustError(
            f"{federation.address} refuses this site's certificate: it was revoked, or replaced by another",
            next_step="ask the central team for a new token and join again: fedsite join file:TOKENFILE",
        )
    raise refused or UnreachableError(
        f"{federation.address} answered with HTTP {answer.status_code}", next_step="the server's log says more"
    )


def _check_clock(theirs: datetime, ours: datetime) -> None:
    """Say by how much the clocks differ when that would break every later request.

    Raises:
        TrustError: they do.
    """
    ahead = (ours - theirs).total_seconds()
    if -BEHIND_S <= ahead <= AHEAD_S + _ROUNDING_S:
        return
    raise TrustError(
        f"this host's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's",
        allowed=f"at most {AHEAD_S:.0f} s ahead and {BEHIND_S:.0f} s behind",
        next_step="switch time synchronisation on (timedatectl set-ntp true), then join again",
    )
