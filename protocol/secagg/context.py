"""What every signature, hash and key of a session is bound to, byte for byte.

Sites that were shown different models, manifests, rosters or survivors derive different seeds: their masks do not
cancel, and the server holds noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fedsite.protocol import ids
from fedsite.protocol.encoding import enc, sha256

NO_MODEL: Final = bytes(32)  # in the place of a model's hash where there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at one sum: what all sites and the server agree on before any key exists."""

    run_id: str  # ULID
    round: int
    attempt: int
    manifest_hash: bytes  # 32 bytes; the manifest names the purpose, so statistics and train never share a session

    @property
    def adv_ctx(self) -> bytes:
        """What an advert is signed over, 32 bytes: everything but the model, which may not exist yet."""
        fields = (ids.run_bytes(self.run_id), self.round, self.attempt, self.manifest_hash)
        return sha256(enc("fedsite/sa1/advertise", *fields))

    def ctx(self, model_hash: bytes) -> bytes:
        """With the model that is trained, 32 bytes.

        Args:
            model_hash: 32 bytes; `NO_MODEL` where there is none.
        """
        run = ids.run_bytes(self.run_id)
        return sha256(enc("fedsite/sa1", run, self.round, self.attempt, model_hash, self.manifest_hash))


def corrected(model_hash: bytes, control: bytes) -> bytes:
    """What stands for the model where steps are corrected, 32 bytes: no site is shown another c than the rest.

    Args:
        model_hash: 32 bytes.
        control: the blob, c.
    """
    return sha256(enc("fedsite/sa1/corrected", model_hash, sha256(control)))


def roster_hash(adverts: Sequence[bytes]) -> bytes:
    """H(roster) of the signed adverts, in order of site id."""
    return sha256(enc("fedsite/sa1/roster", *adverts))


def session(ctx: bytes, roster: bytes) -> bytes:
    """The session that all keys belong to, from `ctx` and H(roster)."""
    return sha256(enc("fedsite/sa1/session", ctx, roster))


def set_hash(sites: Iterable[bytes]) -> bytes:
    """H(U) of a set of site ids."""
    return sha256(enc("fedsite/sa1/set", *sorted(sites)))


def salt(session: bytes, shared: Iterable[bytes]) -> bytes:
    """The salt of all mask seeds: the session and U2, the sites whose shares exist."""
    return sha256(enc("fedsite/sa1/salt", session, set_hash(shared)))


def share_aad(session: bytes, source: bytes, target: bytes) -> bytes:
    """Associated data of one encrypted share."""
    return enc("fedsite/sa1/aad", session, source, target)


def advert_message(adv_ctx: bytes, body: bytes) -> bytes:
    """What a site signs to advertise its keys."""
    return enc("fedsite/sa1/sig/advertise", adv_ctx, body)


def survivors_message(session: bytes, survivors: Iterable[bytes]) -> bytes:
    """What a site signs to confirm who survived."""
    return enc("fedsite/sa1/sig/survivors", session, set_hash(survivors))
