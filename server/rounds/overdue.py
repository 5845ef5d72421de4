"""Questions that were closed without an answer: one that still comes is told as late, and stays unread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedsite.protocol.messages import Kind
from fedsite.server.link.transport import Link
from fedsite.server.runs.journal import Journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """An answer that came when its question was closed."""

    site_id: str
    site: str  # its name
    phase: Kind
    round: int
    carried: bool = False  # its way takes days


class Overdue:
    """The unanswered questions of a run, until the transport gives them up."""

    def __init__(self, link: Link, journal: Journal, clock: Callable[[], float]) -> None:
        self._link = link
        self._journal = journal
        self._clock = clock
        self._asked: dict[str, tuple[Late, float]] = {}  # by message id, with the time it expires

    def add(self, unanswered: Mapping[str, Late], expires: float) -> None:
        """Remember these, by message id, until `expires` seconds on our clock."""
        self._asked |= {message: (late, expires) for message, late in unanswered.items()}

    def settle(self) -> list[Late]:
        """Those that have been answered since, each once."""
        now = self._clock()
        self._asked = {message: item for message, item in self._asked.items() if item[1] > now}
        settled = self._link.late(list(self._asked)) if self._asked else {}
        found = [(self._asked.pop(message)[0], answered) for message, answered in settled.items()]
        late = [item for item, answered in found if answered]
        for item in late:
            self.note(item)
        return late

    @property
    def open_s(self) -> float:
        """Seconds until the last of them expires; 0 where there is none."""
        return max((expires for _, expires in self._asked.values()), default=self._clock()) - self._clock()

    def unheard(self, kind: Kind) -> bool:
        """Whether a question of this kind to a connected site is still on its way; what is settled now is forgotten."""
        now = self._clock()
        waiting = [
            message
            for message, (late, expires) in self._asked.items()
            if late.phase == kind and not late.carried and expires > now
        ]
        settled = self._link.late(waiting) if waiting else {}
        for message in settled:
            del self._asked[message]
        return len(settled) < len(waiting)

    def note(self, late: Late) -> None:
        """Journal an answer that does not count."""
        self._journal.record("late", phase=late.phase, round=late.round, site=late.site)
