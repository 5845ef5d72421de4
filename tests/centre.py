"""A centre that enrols, with real keys, certificates and `fedsite.db`, and sites that ask it; no network, no Flower."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from fedsite.protocol import certificates, instants, renewal, tokens
from fedsite.protocol.enrolment import Answer, Request, open_answer, sign_request
from fedsite.protocol.keys import NodeKey, SigningKey, TlsKey
from fedsite.protocol.renewal import Departure, Renewal
from fedsite.server import home as homes
from fedsite.server.sites.enrolment import Enrolment
from fedsite.server.sites.fleet import Fleet

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class EnrollingSite:
    """A site's three keys, and what it says with them."""

    identity: SigningKey = field(default_factory=SigningKey.generate)
    node: NodeKey = field(default_factory=NodeKey.generate)
    tls: TlsKey = field(default_factory=TlsKey.generate)

    def renewal(self, federation: str, certificate: str, now: datetime, tls: TlsKey | None = None) -> Renewal:
        """What it says to renew the certificate (PEM) it has."""
        return Renewal(
            federation=federation,
            site_id=self.identity.public.id,
            certificate=certificates.fingerprint(certificate),
            request=certificates.make_request(tls or TlsKey.generate(), self.identity.public.id),
            time=instants.text(now),
        )

    def departure(self, federation: str, certificate: str, now: datetime) -> Departure:
        """What it says to leave."""
        return Departure(
            federation=federation,
            site_id=self.identity.public.id,
            certificate=certificates.fingerprint(certificate),
            time=instants.text(now),
        )

    def request(self, token: str, name: str = "alpha") -> Request:
        """What it says at enrolment."""
        return Request(
            token=token,
            name=name,
            identity=self.identity.public.text,
            node_key=self.node.public_pem.decode(),
            request=certificates.make_request(self.tls, self.identity.public.id),
            time=instants.text(START),
        )

    def ask(self, token: str, name: str = "alpha") -> bytes:
        """The signed body."""
        return sign_request(self.request(token, name), self.identity)


@dataclass
class Centre:
    """The service behind the public port; `nodes` is what Flower's table of nodes would be, `retired` what left it."""

    home: homes.ServerHome
    now: datetime = START
    nodes: dict[bytes, str] = field(default_factory=dict)
    retired: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.federation = homes.create(self.home, name="test", address="127.0.0.1:9443", now=START)
        self.fleet = Fleet(self.home.database)
        self.service = Enrolment(
            self.home.load_keys(),
            self.fleet,
            register_node=self._register,
            retire_node=self.retired.append,
            clock=lambda: self.now,
        )

    def _register(self, key: bytes) -> str:
        return self.nodes.setdefault(key, str(2**63 + len(self.nodes)))

    def token(self, seconds: float = 3600, *, label: str = "", replaces: str = "") -> str:
        """A new token."""
        key = self.home.signing_key()
        return tokens.create(self.federation, key, expires_s=seconds, label=label, replaces=replaces, now=self.now)

    def renew(self, site: EnrollingSite, certificate: str, tls: TlsKey | None = None) -> Answer:
        """Renew the certificate (PEM) of a site."""
        asked = renewal.sign(site.renewal(self.federation.id, certificate, self.now, tls), site.identity)
        return open_answer(self.service.renew(certificates.der(certificate), asked), self.federation)

    def enrol(self, body: bytes) -> Answer:
        """The answer to a request."""
        return open_answer(self.service.enrol(body), self.federation)
