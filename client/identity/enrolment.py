"""Joining a federation: the token says whom to trust, keys are made here and stay here, and the answer is checked.

Order matters. Nothing secret leaves before the server has shown the federation document whose digest the token pins;
from then on only that federation's authority is accepted. Every file is written whole, `site.json` last: a join that
was interrupted can be repeated, and a join that is done already says so and changes nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from fedsite.client.carried import standing
from fedsite.client.identity import introduction, pair
from fedsite.client.identity.site import PENDING
from fedsite.client.link.flower_client import Connection
from fedsite.protocol import certificates, documents, instants, site_document, storage, tokens
from fedsite.protocol.enrolment import Request, open_answer, sign_request
from fedsite.protocol.errors import ConfigError, DocumentError, FedsiteError, TrustError
from fedsite.protocol.federation import Federation, check_fingerprint
from fedsite.protocol.keys import NodeKey, SigningKey, TlsKey

STATE_SCHEMA = "fedsite.site-state/1"
REJOIN_BEFORE = timedelta(days=14)  # a token is used for a certificate that ends so soon; the agent renews long before
STAGED_KEY = "tls.key"  # the TLS key of a join under way; then it lies in the pair's file


K = TypeVar("K", SigningKey, NodeKey, TlsKey)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What a join ends with."""

    site_id: str  # hex
    name: str
    node_id: int
    federation: Federation
    certificate_expires: str  # RFC 3339
    already: bool  # nothing was changed
    replaces: bool = False  # this host took the place of one that was lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a site is about to ask for."""

    text: str = field(repr=False)  # of the token
    token: tokens.Token = field(repr=False)
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What the server answered, checked."""

    node_id: str  # decimal text
    name: str
    certificate: str  # PEM
    expires: str  # RFC 3339
    document: bytes  # the signed fedsite.site/1


def join(
    token_text: str,
    directory: Path,
    *,
    name: str | None = None,
    fingerprint: str | None = None,
    clock: Callable[[], datetime] = instants.now,
) -> Joined:
    """Join, join anew with a certificate that ends, or say that it is done already.

    Args:
        token_text: as `fedsite token create` printed it.
        directory: the site's state directory.
        name: a label for people; when None what the token says it is for, where that is a name, else the host's name.
        fingerprint: of the federation, as the operator was told by another way; None: not compared.
        clock: UTC.

    Raises:
        TrustError: token forged, expired or used; another federation, in the token or at its address; the clocks
            differ too much.
        UnreachableError: the server does not answer.
        ConfigError: the site has joined another federation, or under another name; name or fingerprint are malformed.
        StorageError: the state directory cannot be written.
    """
    wanted = asking(token_text, directory, name=name, fingerprint=fingerprint, now=clock())
    if isinstance(wanted, Joined):
        return wanted
    federation = introduction.fetch_federation(wanted.token, clock())
    answer = introduction.post(federation, "/enrol", make_request(directory, wanted, clock()))
    standing.unmark(directory)  # as the server does
    return accept(directory, federation, answer, clock(), replaces=bool(wanted.token.replaces))


def asking(
    token_text: str, directory: Path, *, name: str | None, fingerprint: str | None, now: datetime
) -> Joined | Wanted:
    """What there is to ask for, or what an earlier join left that is enough; arguments and errors as of `join`."""
    token = tokens.read(token_text)
    if fingerprint is not None:
        check_fingerprint(fingerprint, token.federation)
    storage.private_directory(directory)
    known = load_joined(directory)
    if known is not None:
        if known.federation.digest != token.federation:
            raise ConfigError(
                f"this site has joined federation {known.federation.name} ({known.federation.id})",
                allowed="one federation for each state directory",
                next_step="fedsite leave first, or set FEDSITE_HOME to another directory",
            )
        if name not in (None, known.name):
            raise ConfigError(
                f"this site has joined as {known.name}, not {name!r:.80}",
                allowed="its own name, or none",
                next_step="fedsite leave first, or set FEDSITE_HOME to another directory",
            )
        if _lasts(directory, known.federation, now + REJOIN_BEFORE):
            return known
        name = known.name
    label = site_document.check_name(name or _noted(token.label) or _host_label())
    return Wanted(text=token_text.strip(), token=token, name=label)


def make_request(directory: Path, wanted: Wanted, now: datetime) -> bytes:
    """The signed request for keys that are made here, and stay here."""
    identity = _key(directory / "identity.key", SigningKey.load, SigningKey.generate)
    node_key = _key(directory / "node.key", NodeKey.load, NodeKey.generate)
    tls_key = _key(directory / STAGED_KEY, TlsKey.load, TlsKey.generate)
    request = Request(
        token=wanted.text,
        name=wanted.name,
        identity=identity.public.text,
        node_key=node_key.public_pem.decode("ascii"),
        request=certificates.make_request(tls_key, identity.public.id),
        time=instants.text(now),
    )
    return sign_request(request, identity)


def accept(directory: Path, federation: Federation, answer: bytes, now: datetime, *, replaces: bool) -> Joined:
    """Keep what the server answered to the request that was made here.

    Raises:
        DocumentError, TrustError: not this federation's word, or about other keys. StorageError: nothing is in force.
    """
    identity = SigningKey.load(directory / "identity.key")
    node_key = NodeKey.load(directory / "node.key")
    tls_key = TlsKey.load(directory / STAGED_KEY)
    issued = check_answer(answer, federation, identity, node_key, now)
    storage.write_atomic(directory / "federation.json", federation.encode())
    storage.write_atomic(directory / "ca.crt", federation.ca_certificate.encode("ascii"))  # flower-supernode reads it
    keep(directory, federation, identity, tls_key, issued)
    with storage.storage_errors(directory):
        for name in (STAGED_KEY, PENDING):  # PENDING: a request by file, whose answer comes too late now
            (directory / name).unlink(missing_ok=True)
    return Joined(
        site_id=identity.public.id,
        name=issued.name,
        node_id=int(issued.node_id),
        federation=federation,
        certificate_expires=issued.expires,
        already=False,
        replaces=replaces,
    )


def check_answer(data: bytes, federation: Federation, identity: SigningKey, node_key: NodeKey, now: datetime) -> Issued:
    """What the server answered to this site's request, for a first certificate or the next.

    Raises:
        DocumentError, TrustError: not the federation's word, or about other keys than this site's.
    """
    answer = open_answer(data, federation)
    checked = certificates.check(answer.certificate, federation, now)
    document = site_document.verify(answer.site.encode("utf-8"), federation, now)
    told = (checked.site_id, answer.site_id, document.site_id, document.node_key, document.certificate)
    ours = (identity.public.id,) * 3 + (node_key.public_pem.decode("ascii"), checked.fingerprint)
    if told != ours:
        raise TrustError("the server's answer is about other keys than this site's", next_step="join with a new token")
    return Issued(
        node_id=answer.node_id,
        name=document.name,
        certificate=answer.certificate,
        expires=instants.text(checked.not_after),
        document=answer.site.encode("utf-8"),
    )


def keep(directory: Path, federation: Federation, identity: SigningKey, key: TlsKey, issued: Issued) -> None:
    """Write what was issued; after the first of three files the site has its new certificate, whatever happens then.

    Raises:
        StorageError: the disk is full or read-only; the old certificate is still in force.
    """
    state = {
        "schema": STATE_SCHEMA,
        "site_id": identity.public.id,
        "name": issued.name,
        "node_id": issued.node_id,
        "address": federation.address,
        "expires": issued.expires,
    }
    pair.save(directory, key, issued.certificate)
    storage.write_atomic(directory / "site.signed.json", issued.document)
    storage.write_atomic(directory / "site.json", documents.canonical(state))


def load_joined(directory: Path) -> Joined | None:
    """What an earlier join left, or None.

    Raises:
        DocumentError, TrustError, StorageError: it is damaged or unreadable.
    """
    if not (directory / "site.json").exists():
        return None
    try:
        state = documents.document(storage.read(directory / "site.json"), STATE_SCHEMA)
        return Joined(
            site_id=str(state["site_id"]),
            name=str(state["name"]),
            node_id=int(state["node_id"]),
            federation=Federation.parse(storage.read(directory / "federation.json")),
            certificate_expires=pair.expires(directory) or str(state["expires"]),
            already=True,
        )
    except (DocumentError, KeyError, ValueError):
        raise DocumentError(
            f"{directory / 'site.json'} is damaged, or federation.json beside it",
            next_step="restore both from a backup, or: fedsite leave, then fedsite join",
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
    # The server hangs up on such a certificate without a word, as a server in trouble does: tell it here.
    checked = pair.check(directory, known.federation, instants.now())
    return Connection(
        known.federation,
        tls=pair.tls(directory, known.federation),
        node_key=node_key,
        node_id=known.node_id,
        expires=checked.not_after,
    )


def use_new_pair(connection: Connection, directory: Path) -> None:
    """Have the connections to come made with the pair that lies there now; those that are open stay as they are.

    Raises:
        TrustError, StorageError: the pair is damaged.
    """
    checked = pair.check(directory, connection.federation, instants.now())
    connection.use(pair.tls(directory, connection.federation), checked.not_after)


def _lasts(directory: Path, federation: Federation, until: datetime) -> bool:
    """Whether the pair is whole and its certificate holds until then; a new one is what a damaged one needs."""
    try:
        pair.check(directory, federation, until)
    except FedsiteError:
        return False
    return True


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
    host = socket.gethostname().split(".")[0]
    letters = [letter if letter.isalnum() and letter.isascii() else "-" for letter in host]
    return "".join(letters).strip("-")[:63] or "site"
