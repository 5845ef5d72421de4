"""The round loop's Link to sites without a network, over files that people carry; and both kinds of sites as one link.

A carried site always counts as online: whether it takes part shows by the deadline, as with every site.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from fedsite.protocol import instants
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.messages import Frame
from fedsite.server.carried.spool import Spool
from fedsite.server.link.transport import Failure, Link, SiteLink, enrolled

ROSTER_S: Final = 1.0  # who is enrolled is known for so long, seconds
POLL_S: Final = 0.25  # between two looks for replies, seconds

_log = logging.getLogger(__name__)


class CarriedLink:
    """Link for one run. A message's id is the site's id and the name of its file."""

    def __init__(
        self,
        folder: Path,
        database: Path,
        run_id: str,
        *,
        now: Callable[[], datetime] = instants.now,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Remove what expired, and what an earlier driver of this run left; nothing is sent yet.

        Args:
            folder: `server/exchange`.
            database: fedsite.db, read only.
            run_id: of the run.
            now: UTC.
            clock: monotonic seconds.
            wait: sleeps.
        """
        self._folder = folder
        self._database = database
        self._clock = clock
        self._wait = wait
        self._roster: list[SiteLink] = []
        self._roster_at = float("-inf")
        for path in folder.iterdir() if folder.is_dir() else ():
            spool = self._spool(path.name)
            spool.withdraw(run_id)
            spool.open(now())

    def sites(self) -> list[SiteLink]:
        """Carried sites that are not revoked, by name; their TLS certificates may have ended, nothing uses them."""
        if self._clock() - self._roster_at > ROSTER_S:
            self._roster = enrolled(self._database, lambda site: site.carried, carried=True)
            self._roster_at = self._clock()
        return list(self._roster)

    def send(self, messages: Sequence[tuple[SiteLink, Frame]], expires_s: float) -> list[str | None]:
        """Put each where it is exported from; when it expires stands in its header."""
        found: list[str | None] = []
        for site, frame in messages:
            try:
                found.append(f"{site.site_id}/{self._spool(site.site_id).put(frame)}")
            except FedsiteError as error:
                _log.warning("site %s: %s", site.name, error)
                found.append(None)
        return found

    def poll(self, message_ids: Collection[str], wait_s: float) -> Iterator[tuple[str, Frame | Failure]]:
        """Replies that were carried in; waits up to `wait_s` seconds for the first one."""
        until = self._clock() + wait_s
        while True:
            found = False
            for message in message_ids:
                spool, name = self._place(message)
                try:
                    reply: Frame | Failure | None = spool.take(name)
                except FedsiteError as error:
                    spool.close(name)
                    reply = Failure(reason=str(error))
                if reply is not None:
                    found = True
                    yield message, reply
            left = until - self._clock()
            if found or left <= 0:
                return
            self._wait(min(left, POLL_S))

    def late(self, message_ids: Collection[str]) -> dict[str, bool]:
        """Those answered too late, and those that are no longer on offer."""
        found: dict[str, bool] = {}
        for message in message_ids:
            spool, name = self._place(message)
            if spool.answered(name):
                spool.close(name)
                found[message] = True
            elif not spool.waits(name):
                found[message] = False
        return found

    def _place(self, message: str) -> tuple[Spool, str]:
        site_id, _, name = message.partition("/")
        return self._spool(site_id), name

    def _spool(self, site_id: str) -> Spool:
        return Spool(self._folder, site_id)


class Connected(Link, Protocol):
    """A link whose transport may end the run."""

    @property
    def ended(self) -> bool:
        """True once it did."""


class BothLinks:
    """Connected and carried sites of one run."""

    def __init__(self, connected: Connected, carried: Link) -> None:
        self._connected = connected
        self._carried = carried

    @property
    def ended(self) -> bool:
        """Whether the transport of the connected sites says that the run is over."""
        return self._connected.ended

    def sites(self) -> list[SiteLink]:
        """Both kinds; a carried site that is connected as well is still asked by file."""
        carried = self._carried.sites()
        known = {site.site_id for site in carried}
        return carried + [site for site in self._connected.sites() if site.site_id not in known]

    def send(self, messages: Sequence[tuple[SiteLink, Frame]], expires_s: float) -> list[str | None]:
        """Each the way its site has."""
        found: dict[int, str | None] = {}
        for link, carried in ((self._carried, True), (self._connected, False)):
            chosen = [index for index, (site, _) in enumerate(messages) if site.carried is carried]
            if chosen:
                sent = link.send([messages[index] for index in chosen], expires_s)
                found |= dict(zip(chosen, sent, strict=True))
        return [found[index] for index in range(len(messages))]

    def poll(self, message_ids: Collection[str], wait_s: float) -> Iterator[tuple[str, Frame | Failure]]:
        """What was carried in first, without waiting; then what the network brings."""
        carried, connected = _parted(message_ids)
        found = False
        for item in self._carried.poll(carried, 0.0):
            found = True
            yield item
        yield from self._connected.poll(connected, 0.0 if found else wait_s)

    def late(self, message_ids: Collection[str]) -> dict[str, bool]:
        """Of both."""
        carried, connected = _parted(message_ids)
        return {**self._carried.late(carried), **(self._connected.late(connected) if connected else {})}


def _parted(message_ids: Collection[str]) -> tuple[list[str], list[str]]:
    """Ids of messages that are carried, and of the others."""
    carried = [message for message in message_ids if "/" in message]
    return carried, [message for message in message_ids if "/" not in message]
