"""A site's keys for one attempt, signed by its identity: 176 bytes that the server cannot change unseen.

Layout: site id (16) ‖ mask public key (32) ‖ share public key (32) ‖ SHA-256 of b (32) ‖ Ed25519 signature (64).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fedsite.protocol import ids
from fedsite.protocol.errors import IntegrityError, RefusalCode, TrustError
from fedsite.protocol.keys import SIGNATURE_BYTES, SigningKey, VerifyKey
from fedsite.protocol.secagg.agreement import check_public
from fedsite.protocol.secagg.context import advert_message

BODY: Final = ids.ID_BYTES + 3 * 32
SIZE: Final = BODY + SIGNATURE_BYTES


@dataclass(frozen=True, slots=True)
class Advert:
    """One entry of the roster."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != SIZE:
            raise IntegrityError(
                f"advert of {len(self.raw)} bytes", allowed=f"{SIZE} bytes", refusal=RefusalCode.MALFORMED
            )

    @classmethod
    def sign(
        cls, site: bytes, mask_public: bytes, share_public: bytes, commitment: bytes, adv_ctx: bytes, key: SigningKey
    ) -> Advert:
        """Make one.

        Args:
            site: 16 bytes.
            mask_public: X25519, 32 bytes.
            share_public: X25519, 32 bytes.
            commitment: SHA-256 of the self-mask secret b.
            adv_ctx: what it is for.
            key: the site's identity.
        """
        body = site + mask_public + share_public + commitment
        return cls(body + key.sign(advert_message(adv_ctx, body)))

    @property
    def site(self) -> bytes:
        """The site's id, 16 bytes."""
        return self.raw[:16]

    @property
    def mask_public(self) -> bytes:
        """X25519 key that pair seeds come from."""
        return self.raw[16:48]

    @property
    def share_public(self) -> bytes:
        """X25519 key that shares are encrypted for."""
        return self.raw[48:80]

    @property
    def commitment(self) -> bytes:
        """SHA-256 of b: what was rebuilt from shares is checked against it."""
        return self.raw[80:112]

    @property
    def keys(self) -> tuple[bytes, bytes, bytes]:
        """All that no other advert may repeat."""
        return self.mask_public, self.share_public, self.commitment

    def check(self, adv_ctx: bytes, identity: VerifyKey) -> None:
        """Check who made it and what for.

        Raises:
            TrustError: another site's key, another attempt, altered, or a key of low order.
        """
        if identity.id != self.site.hex():
            raise TrustError(f"an advert of site {self.site.hex()} with another site's identity")
        for key in (self.mask_public, self.share_public):
            check_public(key, f"site {identity.id}")
        identity.verify(self.raw[BODY:], advert_message(adv_ctx, self.raw[:BODY]), f"advert of site {identity.id}")


@dataclass(frozen=True, slots=True)
class Roster:
    """U1: the adverts of one attempt, in order of site id, no site and no key twice."""

    adverts: tuple[Advert, ...]
    _by_site: Mapping[bytes, Advert] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sites = [advert.site for advert in self.adverts]
        if sites != sorted(set(sites)):
            raise _malformed("a site twice or out of order", "every site once, sorted by id")
        keys = [key for advert in self.adverts for key in advert.keys]
        if len(set(keys)) != len(keys):
            raise _malformed("the same key twice", "keys of its own for every site")
        object.__setattr__(self, "_by_site", dict(zip(sites, self.adverts, strict=True)))

    @classmethod
    def parse(cls, data: bytes, *, most: int) -> Roster:
        """Read adverts one after the other.

        Raises:
            IntegrityError: cut, more than `most` sites, or not a roster.
        """
        if len(data) % SIZE or len(data) > SIZE * most:
            raise _malformed(f"a roster of {len(data)} bytes", f"{SIZE} bytes for each of at most {most} sites")
        return cls(tuple(Advert(data[start : start + SIZE]) for start in range(0, len(data), SIZE)))

    @classmethod
    def of(cls, adverts: Sequence[Advert]) -> Roster:
        """Sort and check.

        Raises:
            IntegrityError: a site or a key twice.
        """
        return cls(tuple(sorted(adverts, key=lambda advert: advert.site)))

    @property
    def raw(self) -> bytes:
        """As it travels."""
        return b"".join(advert.raw for advert in self.adverts)

    @property
    def sites(self) -> tuple[bytes, ...]:
        """Ids, sorted."""
        return tuple(self._by_site)

    def of_site(self, site: bytes) -> Advert:
        """One site's advert.

        Raises:
            IntegrityError: it has none.
        """
        advert = self._by_site.get(site)
        if advert is None:
            raise _malformed(f"site {site.hex()} is not in the roster", "a site of the roster")
        return advert

    def check(self, adv_ctx: bytes, identities: Mapping[bytes, VerifyKey], sites: Sequence[bytes]) -> None:
        """Check the signatures of some of its sites.

        Raises:
            TrustError: a site without a known identity, or a signature that does not verify.
        """
        for site in sites:
            identity = identities.get(site)
            if identity is None:
                raise TrustError(f"site {site.hex()} brings no certificate", allowed="a certified site")
            self.of_site(site).check(adv_ctx, identity)


def _malformed(found: str, allowed: str) -> IntegrityError:
    return IntegrityError(found, allowed=allowed, refusal=RefusalCode.MALFORMED)
