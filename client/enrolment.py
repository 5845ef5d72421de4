"""Joining a federation: the token says whom to trust, keys are made here and stay here, and the answer is checked.

Order matters. Nothing secret leaves before the server has shown the federation document whose digest the token pins;
from then on only that federation's authority is accepted. Every file is written whole, `site.json` last: a join that
was interrupted can be repeated, and a join that is done already says so and changes nothing.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeVar

import httpx

from fedsite.client.flower_client import Connection, http_client, site_tls, transport_error
from fedsite.protocol import certificates, documents, instants, site_document, storage, tokens
from fedsite.protocol.enrolment import MAX_BYTES, Request, open_answer, parse_offer, read_refusal, sign_request
from fedsite.protocol.errors import ConfigError, DocumentError, TrustError, UnreachableError
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import NodeKey, SigningKey, TlsKey
from fedsite.protocol.tokens import Token

STATE_SCHEMA = "fedsite.site-state/1"
RENEW_BEFORE = timedelta(days=14)
AHEAD_S = 5.0  # Flower's bounds for the time in a request's signature
BEHIND_S = 300.0
_ROUNDING_S = 1.5  # times in documents are whole seconds


class _Key(Protocol):
    def save(self, path: Path) -> None: ...


K = TypeVar("K", bound=_Key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What a join ends with."""

    site_id: str  # hex
    name: str
    node_id: int
    federation: Federation
    certificate_expires: str  # RFC 3339
    already: bool  # nothing was changed


def join(
    token_text: str,
    directory: Path,
    *,
    name: str | None = None,
    clock: Callable[[], datetime] = instants.now,
) -> Joined:
    """Join, renew, or say that it is done already.

    Args:
        token_text: as `fedsite token create` printed it.
        directory: the site's state directory.
        name: a label for people; when None what the token says it is for, where that is a name, else the host's name.
        clock: UTC.

    Raises:
        TrustError: token forged, expired or used; another federation answers; the clocks differ too much.
        UnreachableError: the server does not answer.
        ConfigError: the site has joined another federation, or the name is malformed.
        StorageError: the state directory cannot be written.
    """
    token = tokens.read(token_text)
    storage.private_directory(directory)
    known = load_joined(directory)
    if known is not None:
        if known.federation.digest != token.federation:
            raise ConfigError(
                f"this site has joined federation {known.federation.name} ({known.federation.id})",
                allowed="one federation for each state directory",
                next_step="fedsite leave first, or set FEDSITE_HOME to another directory",
            )
        if instants.read(known.certificate_expires) - clock() > RENEW_BEFORE:
            return known
        name = known.name
    label = site_document.check_name(name or _noted(token.label) or _host_label())
    federation = _fetch_federation(token, clock)
    identity = _key(directory / "identity.key", SigningKey.load, SigningKey.generate)
    node_key = _key(directory / "node.key", NodeKey.load, NodeKey.generate)
    tls_key = _key(directory / "tls.key", TlsKey.load, TlsKey.generate)
    request = Request(
        token=token_text.strip(),
        name=label,
        identity=identity.public.text,
        node_key=node_key.public_pem.decode("ascii"),
        request=certificates.make_request(tls_key, identity.public.id),
        time=instants.text(clock()),
    )
    answer = open_answer(_post(federation, sign_request(request, identity)), federation)
    checked = certificates.check(answer.certificate, federation, clock())
    document = site_document.verify(answer.site.encode("utf-8"), federation, clock())
    told = (checked.site_id, answer.site_id, document.site_id, document.node_key, document.certificate)
    if told != (identity.public.id,) * 3 + (request.node_key, checked.fingerprint):
        raise TrustError("the server's answer is about other keys than this site's", next_step="join with a new token")
    state = {
        "schema": STATE_SCHEMA,
        "site_id": identity.public.id,
        "name": document.name,
        "node_id": answer.node_id,
        "address": federation.address,
        "expires": document.expires,
    }
    storage.write_atomic(directory / "federation.json", federation.encode())
    storage.write_atomic(directory / "ca.crt", federation.ca_certificate.encode("ascii"))  # flower-supernode reads it
    storage.write_atomic(directory / "site.crt", answer.certificate.encode("ascii"))
    storage.write_atomic(directory / "site.signed.json", answer.site.encode("utf-8"))
    storage.write_atomic(directory / "site.json", documents.canonical(state))
    return Joined(
        site_id=identity.public.id,
        name=document.name,
        node_id=int(answer.node_id),
        federation=federation,
        certificate_expires=document.expires,
        already=False,
    )


def load_joined(directory: Path) -> Joined | None:
    """What an earlier join left, or None.

    Raises:
        DocumentError, TrustError, StorageError: it is damaged or unreadable.
    """
    if not (directory / "site.json").exists():
        return None
    state = documents.document(storage.read(directory / "site.json"), STATE_SCHEMA)
    try:
        return Joined(
            site_id=str(state["site_id"]),
            name=str(state["name"]),
            node_id=int(state["node_id"]),
            federation=Federation.parse(storage.read(directory / "federation.json")),
            certificate_expires=str(state["expires"]),
            already=True,
        )
    except (KeyError, ValueError):
        raise DocumentError(
            f"{directory / 'site.json'} is damaged", next_step="fedsite leave, then join again with a new token"
        ) from None


def open_connection(directory: Path) -> Connection:
    """The connection of a site that has joined.

    Raises:
        ConfigError: it has not.
        TrustError, StorageError: a key or certificate is damaged, missing or readable by others.
    """
    known = load_joined(directory)
    if known is None:
        raise ConfigError("this host has not joined a federation", next_step="fedsite join file:TOKENFILE")
    node_key = NodeKey.load(directory / "node.key")
    TlsKey.load(directory / "tls.key")  # refuses a key that others can read
    # The server hangs up on such a certificate without a word, as a server in trouble does: tell it here.
    certificates.check(storage.read(directory / "site.crt"), known.federation, instants.now())
    try:
        tls = site_tls(known.federation, str(directory / "site.crt"), str(directory / "tls.key"))
    except (ssl.SSLError, OSError) as error:
        raise TrustError(
            f"{directory / 'site.crt'} and tls.key do not fit: {error}",
            next_step="ask the central team for a new token, then fedsite join file:TOKENFILE",
        ) from None
    expires = instants.read(known.certificate_expires)
    return Connection(known.federation, tls=tls, node_key=node_key, node_id=known.node_id, expires=expires)


def _fetch_federation(token: Token, clock: Callable[[], datetime]) -> Federation:
    """The document the token pins, from a server that nothing is believed of yet."""
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE  # the digest in the token is the check
    host = token.address.rpartition(":")[0].strip("[]")
    try:
        with http_client(host, unverified) as http:
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
    _check_clock(instants.read(offer.time), clock())
    return federation


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


def _post(federation: Federation, body: bytes) -> bytes:
    try:
        with http_client(federation.host, site_tls(federation)) as http:
            answer = http.post(
                f"https://{federation.address}/enrol", content=body, headers={"content-type": "application/json"}
            )
    except (httpx.HTTPError, OSError) as error:
        raise transport_error(error, federation.address) from None
    if answer.status_code == httpx.codes.OK:
        return answer.content
    raise read_refusal(answer.content) or UnreachableError(
        f"{federation.address} answered with HTTP {answer.status_code}", next_step="the server's log says more"
    )


def _key(path: Path, load: Callable[[Path], K], generate: Callable[[], K]) -> K:
    """The key of an interrupted join, or a new one, on the disk before anybody hears of it."""
    if path.exists():
        return load(path)
    key = generate()
    key.save(path)
    return key


def _noted(label: str) -> str | None:
    """A token's label, where it can be a site's name; it may as well be a sentence."""
    try:
        return site_document.check_name(label)
    except DocumentError:
        return None


def _host_label() -> str:
    letters = [
        letter if letter.isalnum() and letter.isascii() else "-" for letter in socket.gethostname().split(".")[0]
    ]
    return "".join(letters).strip("-")[:63] or "site"
