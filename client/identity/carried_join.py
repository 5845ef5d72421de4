"""Joining without a network: the request and its answer are files, and the checks are those of any other join.

The token pins the federation; its document comes with the answer and is compared then. The request file holds the
token: until it was used, it is as secret as the token itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from fedsite.client.carried import standing
from fedsite.client.identity import enrolment
from fedsite.client.identity.enrolment import STAGED_KEY, Joined
from fedsite.client.identity.site import PENDING
from fedsite.protocol import documents, instants, storage
from fedsite.protocol.enrolment import Admission
from fedsite.protocol.errors import ConfigError, TrustError

SCHEMA: Final = "fedsite.joining/1"
_NEXT: Final = "fedsite join file:TOKENFILE --request FILE"


def request(
    token_text: str,
    directory: Path,
    *,
    name: str | None = None,
    fingerprint: str | None = None,
    clock: Callable[[], datetime] = instants.now,
) -> bytes | Joined:
    """The request to be carried, or what an earlier join left that is enough; arguments and errors as of `join`."""
    wanted = enrolment.asking(token_text, directory, name=name, fingerprint=fingerprint, now=clock())
    if isinstance(wanted, Joined):
        return wanted
    body = enrolment.make_request(directory, wanted, clock())
    state = {"schema": SCHEMA, "federation": wanted.token.federation, "replaces": bool(wanted.token.replaces)}
    storage.write_atomic(directory / PENDING, documents.canonical(state))
    return body


def answered(directory: Path, data: bytes, *, clock: Callable[[], datetime] = instants.now) -> Joined:
    """Join with the answer that was carried back; one that was used already changes nothing.

    Raises:
        ConfigError: nothing was asked for here.
        DocumentError: not an answer.
        TrustError: of another federation than the token's, or about other keys than this site's.
        StorageError: the state directory cannot be written.
    """
    admission = Admission.parse(data)
    federation = admission.read_federation()
    pending = directory / PENDING
    # The key that was asked for lies with its certificate once that is here.
    if not (pending.exists() and (directory / STAGED_KEY).exists()):
        known = enrolment.load_joined(directory)
        if known is not None and known.federation.digest == federation.digest:
            standing.mark(directory)
            with storage.storage_errors(pending):
                pending.unlink(missing_ok=True)
            return known
        raise ConfigError("no request was made at this host", allowed="the host that asked", next_step=_NEXT)
    asked = documents.document(storage.read(pending), SCHEMA)
    if federation.digest != asked.get("federation"):
        raise TrustError(
            f"this answer is of federation {federation.name} ({federation.id}), not of the one the token is for",
            allowed=f"a federation document with SHA-256 {str(asked.get('federation'))[:16]}…",
            next_step="do not go on: ask the central team whether the server was set up anew, and for a new token",
        )
    joined = enrolment.accept(
        directory, federation, documents.canonical(admission.answer), clock(), replaces=bool(asked.get("replaces"))
    )
    standing.mark(directory)
    return joined
