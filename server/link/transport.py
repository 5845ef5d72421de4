"""What the round loop needs of a transport: who is there, send, poll. Flower is one, the tests' memory another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedsite.protocol.keys import VerifyKey
from fedsite.protocol.messages import Frame
from fedsite.server.sites.fleet_file import Site, read_sites


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteLink:
    """An enrolled, unrevoked site that is online."""

    site_id: str  # hex
    name: str
    node_id: str  # the transport's own address, decimal text
    public_key: VerifyKey  # the identity it enrolled with
    certified: bytes = b""  # the same, for other sites (protocol.certified); a site without takes no part in sums
    carried: bool = False  # without a network: its messages are files that people carry


def enrolled(database: Path, wanted: Callable[[Site], bool], *, carried: bool = False) -> list[SiteLink]:
    """The sites of fedsite.db that are wanted and not revoked, by name; `carried` is whether they are reached so."""
    return [
        SiteLink(
            site_id=site.site_id,
            name=site.name,
            node_id=site.node_id,
            public_key=VerifyKey(site.identity),
            certified=site.certified,
            carried=carried,
        )
        for site in read_sites(database)
        if site.revoked is None and wanted(site)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A message whose reply will not come."""

    reason: str  # the transport's words, for the server's log only


class Link(Protocol):
    """A transport to the sites. No method raises because of one site."""

    def sites(self) -> list[SiteLink]:
        """Enrolled, unrevoked sites that are online now."""

    def send(self, messages: Sequence[tuple[SiteLink, Frame]], expires_s: float) -> list[str | None]:
        """Send each frame to its site; returns message ids in the same order, None where it could not be sent.

        Args:
            messages: frames may share the bytes of their blobs.
            expires_s: seconds after which an undelivered message is dropped.
        """

    def poll(self, message_ids: Collection[str], wait_s: float) -> Iterator[tuple[str, Frame | Failure]]:
        """Replies that have arrived, one at a time; waits up to `wait_s` seconds for the first, and may yield none."""

    def late(self, message_ids: Collection[str]) -> dict[str, bool]:
        """Which of these, that nobody waits for any more, are settled: true when answered, false when lost for good.

        Answers stay unread. Each is told once.
        """
