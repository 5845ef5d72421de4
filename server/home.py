"""The server's state directory: which file is what, made once by `fedsite server init`, never overwritten."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from fedsite.protocol import certificates, documents, keys, storage
from fedsite.protocol.certificates import Authority
from fedsite.protocol.errors import ConfigError, UnreachableError
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey, TlsKey

_NEXT = "fedsite server init"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKeys:
    """What the enrolment signs with."""

    federation: Federation
    signing: SigningKey = field(repr=False)
    authority: Authority = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServerHome:
    """Paths below `server/`, and what is read from them."""

    path: Path

    @classmethod
    def default(cls) -> ServerHome:
        """The one that the environment names."""
        return cls(storage.state_home() / "server")

    @property
    def federation_file(self) -> Path:
        """Public: fedsite.federation/1."""
        return self.path / "federation.json"

    @property
    def tls_certificate(self) -> Path:
        """The public port's certificate."""
        return self.path / "tls.crt"

    @property
    def tls_key(self) -> Path:
        """Its key."""
        return self.path / "tls.key"

    @property
    def admin_secret(self) -> Path:
        """Bearer secret of the loopback administration."""
        return self.path / "admin.secret"

    @property
    def superexec_secret(self) -> Path:
        """Shared by SuperLink and superexec."""
        return self.path / "superexec.secret"

    @property
    def database(self) -> Path:
        """Sites and used tokens: ours."""
        return self.path / "fedsite.db"

    @property
    def superlink_database(self) -> Path:
        """Flower's own."""
        return self.path / "superlink.db"

    @property
    def flower_home(self) -> Path:
        """FLWR_HOME."""
        return self.path / "flwr"

    @property
    def logs(self) -> Path:
        """Logs of the children."""
        return self.path / "logs"

    @property
    def runs(self) -> Path:
        """One directory for each run."""
        return self.path / "runs"

    @property
    def exchange(self) -> Path:
        """Messages that people carry, one directory for each such site."""
        return self.path / "exchange"

    @property
    def releases(self) -> Path:
        """One directory for each released version."""
        return self.path / "releases"

    @property
    def running(self) -> Path:
        """server.json: written when the server is ready, removed when it stops."""
        return self.path / "server.json"

    @property
    def exists(self) -> bool:
        """True once `init` has finished: federation.json is written last."""
        return self.federation_file.exists()

    def federation(self) -> Federation:
        """The federation's document.

        Raises:
            ConfigError: `init` has not been run.
            DocumentError, TrustError, StorageError: the file is damaged or unreadable.
        """
        if not self.exists:
            raise ConfigError(f"no federation in {self.path}", allowed="a server that was set up", next_step=_NEXT)
        return Federation.parse(storage.read(self.federation_file))

    def signing_key(self) -> SigningKey:
        """The key under tokens, instructions, site documents and releases."""
        return SigningKey.load(self.path / "signing.key")

    def load_keys(self) -> ServerKeys:
        """Everything that enrolment needs.

        Raises:
            ConfigError, TrustError, StorageError: missing, damaged, or readable by others.
        """
        federation = self.federation()
        authority = Authority(key=TlsKey.load(self.path / "ca.key"), certificate=federation.ca_certificate)
        return ServerKeys(federation=federation, signing=self.signing_key(), authority=authority)

    def read_admin_secret(self) -> str:
        """The bearer secret.

        Raises:
            TrustError, StorageError: readable by others, or missing.
        """
        return keys.read_secret(self.admin_secret).decode("ascii").strip()


def create(home: ServerHome, *, name: str, address: str, now: datetime) -> Federation:
    """Make authority, keys and certificates; federation.json comes last and makes it a federation.

    Raises:
        ConfigError: there is one already with another name or address, or a value is malformed.
        StorageError: the disk is full or read-only.
    """
    storage.private_directory(home.path.parent)
    storage.private_directory(home.path)
    if home.exists:
        return _unchanged(home, name, address)
    for folder in (home.logs, home.runs, home.releases, home.flower_home):
        storage.private_directory(folder)
    signing = SigningKey.generate()
    authority = certificates.make_authority(signing.public.id, name, now)
    federation = Federation(
        id=signing.public.id,
        name=name,
        address=address,
        ca_certificate=authority.certificate,
        signing_key=signing.public.text,
    )
    tls = TlsKey.generate()
    signing.save(home.path / "signing.key")
    authority.key.save(home.path / "ca.key")
    tls.save(home.tls_key)
    storage.write_atomic(home.tls_certificate, certificates.issue_server(authority, tls, address, now).encode("ascii"))
    storage.write_atomic(home.admin_secret, secrets.token_urlsafe(32).encode("ascii"))
    storage.write_atomic(home.superexec_secret, secrets.token_bytes(32))
    storage.write_atomic(home.federation_file, federation.encode(), mode=0o644)
    return federation


def read_running(home: ServerHome) -> dict[str, object]:
    """server.json: address, ports and process ids of the running server.

    Raises:
        UnreachableError: it is not running.
    """
    if not home.running.exists():
        raise UnreachableError("the server is not running", next_step="fedsite server up")
    value = documents.document(storage.read(home.running), "fedsite.server/1")
    return dict(value)


def _unchanged(home: ServerHome, name: str, address: str) -> Federation:
    found = home.federation()
    for what, old, new in (("name", found.name, name), ("address", found.address, address)):
        if new and new != old:
            raise ConfigError(
                f"{home.path} already holds federation {found.id} with {what} {old}",
                allowed=f"its own {what}, or another FEDSITE_HOME",
                next_step="FEDSITE_HOME=DIRECTORY fedsite server init; existing sites would have to join again",
            )
    return found
