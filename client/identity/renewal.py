"""A site's certificate is renewed by its agent, long before it ends; and a site that leaves tells the server so.

The next certificate is for a new key. Until the new pair lies on the disk, in one rename, the old one is in force, and
the server goes on taking it to its own end: whatever is killed whenever, this site has a pair that counts. A connection
that is open stays open; the new pair is for the next.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from fedsite.client.audit import log as audit_log
from fedsite.client.identity import enrolment, introduction, pair
from fedsite.protocol import certificates, instants, renewal
from fedsite.protocol.errors import ConfigError, FedsiteError
from fedsite.protocol.keys import NodeKey, SigningKey, TlsKey
from fedsite.protocol.renewal import Departure

_LOG = logging.getLogger(__name__)

PART = 3  # a certificate is renewed in the last third of its life: thirty days before a ninety-day one ends
_FIRST_PAUSE = timedelta(minutes=5)  # after a failure; then twice as long each time
_LONGEST_PAUSE = timedelta(hours=6)


class CertificateRenewal:
    """When it is time, and the renewal itself; the running agent asks it between instructions."""

    def __init__(
        self,
        directory: Path,
        use: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], datetime] = instants.now,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """Read the certificate's dates.

        Args:
            directory: the site's state directory.
            use: told when a new pair lies there, for the connections to come.
            clock: UTC.
            uniform: draws from [0, 1): sites that enrolled or failed together do not come together.

        Raises:
            TrustError, StorageError: there is no certificate.
        """
        self._directory = directory
        self._use = use
        self._clock = clock
        self._uniform = uniform
        self._failures = 0
        self._next: datetime = self._planned()
        self.problem: FedsiteError | None = None  # why the last attempt failed

    def due(self, now: datetime) -> bool:
        """Whether it is time to try."""
        return now >= self._next

    def when_due(self) -> None:
        """Renew where it is time."""
        if self.due(self._clock()):
            self.renew()

    def renew(self) -> None:
        """Ask for the next certificate, keep it, and have it used; a failure is logged and tried again later."""
        before = pair.expires(self._directory)
        try:
            try:
                renew(self._directory, clock=self._clock)
            finally:
                # On a full disk the pair may be the new one and what is told about it the old.
                if pair.expires(self._directory) != before:
                    self._use()
            self._next = self._planned()
        except FedsiteError as error:
            pause = min(_FIRST_PAUSE * 2 ** min(self._failures, 10), _LONGEST_PAUSE) * (0.5 + self._uniform())
            self._failures += 1
            self.problem = error
            self._next = self._clock() + pause
            again = instants.text(self._next)
            _LOG.warning("the certificate, to %s, was not renewed: %s; trying again at %s", before, error, again)
            return
        _LOG.info("the certificate was renewed: it ends at %s", pair.expires(self._directory))
        self._failures = 0
        self.problem = None

    def _planned(self) -> datetime:
        start, end = certificates.dates(pair.certificate(self._directory))
        return end - (end - start) / PART * (1 - 0.1 * self._uniform())


def renew(directory: Path, *, clock: Callable[[], datetime] = instants.now) -> str:
    """Replace this site's TLS key and certificate now; returns the new one's end (RFC 3339).

    Raises:
        ConfigError: this host has not joined.
        TrustError: the server refuses, or its answer is not for this site; the old pair stays.
        UnreachableError: it does not answer; the same.
        StorageError, IntegrityError: the disk is full, or the audit log takes no entry; the same.
    """
    known, identity = _who(directory, clock())
    node_key = NodeKey.load(directory / "node.key")
    key = TlsKey.generate()
    asked = renewal.Renewal(
        federation=known.federation.id,
        site_id=identity.public.id,
        certificate=certificates.fingerprint(pair.certificate(directory)),
        request=certificates.make_request(key, identity.public.id),
        time=instants.text(clock()),
    )
    tls = pair.tls(directory, known.federation)
    answer = introduction.post(known.federation, "/renew", renewal.sign(asked, identity), tls)
    issued = enrolment.check_answer(answer, known.federation, identity, node_key, clock())
    facts = {"certificate": certificates.fingerprint(issued.certificate), "certificate_expires": issued.expires}
    audit_log.record(directory, "renewed", facts)  # before it holds, as the server does
    enrolment.keep(directory, known.federation, identity, key, issued)
    return issued.expires


def tell_left(directory: Path, *, clock: Callable[[], datetime] = instants.now) -> None:
    """Have the server revoke this site, at its own signed word.

    Raises:
        FedsiteError: this host has not joined, the server does not answer or refuses: it was not told.
    """
    known, identity = _who(directory, clock())
    left = Departure(
        federation=known.federation.id,
        site_id=identity.public.id,
        certificate=certificates.fingerprint(pair.certificate(directory)),
        time=instants.text(clock()),
    )
    introduction.post(known.federation, "/leave", renewal.sign(left, identity), pair.tls(directory, known.federation))


def _who(directory: Path, now: datetime) -> tuple[enrolment.Joined, SigningKey]:
    known = enrolment.load_joined(directory)
    if known is None:
        raise ConfigError("this host has not joined a federation", next_step="fedsite join file:TOKENFILE")
    identity = SigningKey.load(directory / "identity.key")
    pair.check(directory, known.federation, now)
    return known, identity
