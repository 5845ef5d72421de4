"""The server's audit log: `server/audit/`, one chain that link, drivers of runs and commands append to by turns.

The federation's signing key signs it. What a driver writes of its run is a `RunTrail`: what the journal tells that
binds anybody, every exchange with hashes of what came back, every secure sum. Each instruction brings the site this
log's head, and each reply the site's, which stands in the entry of its exchange: so neither side can later write
another history alone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, Protocol

from fedsite.protocol import audit, shape
from fedsite.protocol.audit import Head
from fedsite.protocol.audit_file import FOLDER, AuditFile
from fedsite.protocol.encoding import sha256
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.messages import STAGES, Frame, ReplyHeader

if TYPE_CHECKING:
    from fedsite.protocol.tokens import Token
    from fedsite.server.home import ServerHome
    from fedsite.server.rounds.question import SiteAnswer

Append = Callable[[str, Mapping[str, Any]], None]
FILE_BYTES: Final = 16 << 20  # an exchange with a thousand sites is an entry of 300 kB
# Events of a run's journal that bind somebody; exchanges and sums have entries of their own.
MIRRORED: Final = frozenset({"started", "round_finished", "checkpoint", "released", "release_refused", "installed"})
_HERE = ("path", "folder")  # where something lies on this host is no news to whom the log is shown
_ALWAYS = ("prepare", "install", "finish")  # kinds whose body a site of the release before reads loosely

_log = logging.getLogger(__name__)


class Log(Protocol):
    """Where entries go (protocol.audit_file.AuditFile)."""

    def append(self, kind: str, facts: Mapping[str, Any], heads: Mapping[str, Head] | None = None) -> Head:
        """Write one; it is on the disk when this returns."""

    def head(self) -> Head:
        """Of the log as it is now."""

    def heard(self) -> dict[str, Head]:
        """The last head of each site's log that it tells of."""


def open_log(home: ServerHome) -> AuditFile:
    """The server's log; nothing is written yet.

    Raises:
        TrustError, StorageError: the signing key cannot be read.
    """
    return AuditFile(home.path / FOLDER, home.signing_key(), owner="server", file_bytes=FILE_BYTES)


def nowhere(_kind: str, _facts: Mapping[str, Any]) -> None:
    """The log of whoever has none."""


def appending(log: Log) -> Append:
    """A log for those who want no head back."""

    def append(kind: str, facts: Mapping[str, Any]) -> None:
        log.append(kind, facts)

    return append


@contextlib.contextmanager
def told(append: Append, kind: str, facts: Mapping[str, Any]) -> Iterator[None]:
    """Write an entry, then do what it tells of; what fails after that is told too.

    Raises:
        StorageError, IntegrityError: the entry is not on the disk, and nothing was done.
    """
    append(kind, facts)
    try:
        yield
    except Exception as error:
        with contextlib.suppress(FedsiteError):
            append("failed", {"kind": kind, **facts, "error": type(error).__name__})
        raise


def token_name(token: Token) -> str:
    """What the log calls a token by, when it is made and when it is used: a hash of its nonce, which opens nothing."""
    return sha256(bytes.fromhex(token.nonce)).hex()[:16]


class RunTrail:
    """One run's part of the server's log."""

    def __init__(self, log: Log | None, run_id: str) -> None:
        """`log` is None where nothing is kept: in tests, and in simulations."""
        self._log = log
        self._run_id = run_id
        self._offered: dict[str, Any] = {}
        self._keeps: set[str] = set()  # ids of sites that have told their head, and so read ours
        self._replies: dict[str, dict[str, Any]] = {}
        self._heads: dict[str, Head] = {}
        self._held: dict[str, Head] | None = None  # the newest of each site's, of other runs too

    def note(self, kind: str, facts: Mapping[str, Any], heads: Mapping[str, Head] | None = None) -> None:
        """Write an entry.

        Raises:
            StorageError, IntegrityError: it is not on the disk; the run does not go on.
        """
        if self._log is not None:
            self._log.append(kind, {"run_id": self._run_id, **facts}, heads)

    def mirror(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Write what the journal is about to; the end of a run is told where it can be."""
        facts = {name: value for name, value in facts.items() if name not in _HERE}
        if kind == "started":
            facts["version"] = metadata.version("fedsite")
        if kind in MIRRORED:
            self.note(kind, facts)
        elif kind == "finished":
            try:
                self.note(kind, facts)
            except FedsiteError as error:
                _log.error("the audit log does not say that the run has ended: %s", error)

    def begin(self) -> None:
        """An exchange begins: its instructions bring the head as it is now."""
        self._replies, self._heads = {}, {}
        if self._log is None:
            return
        self._offered = {audit.FIELD: shape.plain(self._log.head())}
        if self._held is None:
            self._held = self._log.heard()

    def offer(self, kind: str, site_id: str) -> Mapping[str, Any]:
        """What an instruction's body brings of this log, and what this log knows of the site's own.

        A site whose log does not have the entry that it told us of was set back to a backup, its ledger with it.

        Work is asked of a site with our head only when it has told its own: to one of the release before, a body that
        is new every time would be new work, and paid for again.
        """
        if kind not in _ALWAYS and site_id not in self._keeps:
            return {}
        held = (self._held or {}).get(site_id)
        return self._offered if held is None else {**self._offered, audit.HELD: shape.plain(held)}

    def replied(self, site_id: str, frame: Frame, reply: ReplyHeader) -> None:
        """Take note of a verified reply.

        Raises:
            DocumentError: what it brings is no head.
        """
        self._replies[site_id] = {"reply": sha256(frame.header).hex(), "blobs": dict(reply.blobs)}
        if audit.FIELD in reply.body:
            self._heads[site_id] = audit.read_head(reply.body[audit.FIELD])
            self._keeps.add(site_id)
            if self._held is not None:
                self._held[site_id] = self._heads[site_id]

    def exchanged(self, facts: Mapping[str, Any], answers: Mapping[str, SiteAnswer]) -> None:
        """Write the entry of an exchange: how each site answered, and hashes of with what.

        Of a stage of a sum only what went wrong: the sum's own entry says the rest.
        """
        sites: dict[str, Any] = {}
        for site_id, answer in answers.items():
            if facts["kind"] not in STAGES or answer.status != "ok":
                code = None if answer.code is None else str(answer.code)
                sites[site_id] = {"status": str(answer.status), "code": code, **self._replies.get(site_id, {})}
        if sites or self._heads:
            self.note("exchange", {**facts, "sites": sites}, self._heads)
