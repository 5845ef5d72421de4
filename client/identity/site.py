"""Who this site is: its identity and the federation it joined, as `fedsite join` left them in the state directory."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fedsite.client.identity import pair
from fedsite.protocol import documents, storage
from fedsite.protocol.errors import ConfigError, DocumentError, FedsiteError, TrustError
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey

FEDERATION = "federation.json"
IDENTITY = "identity.key"
SITE = "site.json"
PENDING = "joining.json"  # what was asked for by file, until the answer is here
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An enrolled site."""

    directory: Path
    name: str
    federation: Federation
    key: SigningKey = field(repr=False)
    certificate_expires: str = ""  # RFC 3339; empty where it is not known

    @property
    def id(self) -> str:
        """The site's id, hex: it names the identity key."""
        return self.key.public.id


def person() -> str:
    """The user of the operating system who runs this: who at the site decided something."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"  # a container's, of no name


def joined(directory: Path) -> bool:
    """True when this host has joined a federation."""
    return all((directory / name).exists() for name in (FEDERATION, IDENTITY, SITE))


def load(directory: Path) -> Site:
    """Read the site's identity and federation.

    Raises:
        ConfigError: this host has not joined a federation.
        DocumentError, TrustError, StorageError: what it kept is damaged, or readable by others.
    """
    if not joined(directory) and (directory / PENDING).exists():
        raise ConfigError(
            f"this host has not joined yet: it waits for the answer to its request ({directory / PENDING})",
            allowed="a site that has joined",
            next_step="fedsite join --answer FILE, with what the central team sends back",
        )
    if not joined(directory):
        raise ConfigError(
            f"this host has not joined a federation ({directory} holds no {SITE})",
            allowed="a site that has joined",
            next_step="fedsite join file:TOKENFILE",
        )
    federation = load_federation(directory)
    value = _read(directory / SITE, documents.parse)
    key = SigningKey.load(directory / IDENTITY)
    known = value if isinstance(value, dict) else {}
    if known.get("site_id") != key.public.id:
        raise TrustError(
            f"{directory / IDENTITY} is not the key that {directory / SITE} is about",
            allowed="the two files of one join",
            next_step="restore both from one backup, or: fedsite leave, then fedsite join",
        )
    return Site(
        directory=directory,
        name=str(known.get("name") or key.public.id[:8]),
        federation=federation,
        key=key,
        # A renewal that was cut short may not have told site.json yet: the certificate itself knows.
        certificate_expires=pair.expires(directory) or str(known.get("expires") or ""),
    )


def load_federation(directory: Path) -> Federation:
    """The federation that this host was told to trust.

    Raises:
        DocumentError, TrustError, StorageError: the file is damaged or missing.
    """
    return _read(directory / FEDERATION, Federation.parse)


def _read(path: Path, parse: Callable[[bytes], T]) -> T:
    """Parse a file; an error names it."""
    try:
        return parse(storage.read(path))
    except FedsiteError as error:
        if isinstance(error, DocumentError):
            error.found = f"file {path}: {error.found}"
            error.next_step = error.next_step or "restore it from a backup, or: fedsite leave, then fedsite join"
        raise
