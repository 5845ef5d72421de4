"""A question to the sites, and what came back: the words in which phases, sealed exchanges and secure sums speak."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedsite.protocol import weights
from fedsite.protocol.messages import Kind, Purpose, ReplyHeader
from fedsite.server.link.transport import SiteLink
from fedsite.server.rounds.machine import RoundState, Rules, Status
from fedsite.server.rounds.overdue import Late
from fedsite.server.rounds.replies import Expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcoming:
    """A sum that will be asked for soon: sites can send their keys for it while they answer something else."""

    purpose: Purpose
    round: int
    expected: Expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of every site of an exchange."""

    kind: Kind
    round: int
    rules: Rules
    purpose: Purpose | None = None  # of the sum that a stage belongs to
    body: Mapping[str, Any] = field(default_factory=dict)
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    each: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)  # further blobs, by site id
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # further parts of the body, by site id
    model_hash: str = ""
    lasts_s: float = 0.0  # it may be delivered so long, and answered unread, where that is longer than its deadline
    expected: Expected = field(default_factory=Expected)
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # of raw blobs in the reply, by site id; bytes
    following: Upcoming | None = None
    enough: Callable[[], bool] = lambda: False  # true: what is still missing is no longer waited for to the last second

    @property
    def valid_s(self) -> float:
        """Seconds in which a site may take it; what a site's clock may be off comes on top."""
        return max(self.rules.deadline_s, self.lasts_s)

    def carrying(self, body: Mapping[str, Any], blobs: Mapping[str, bytes]) -> Question:
        """The same with more in it."""
        return replace(self, body={**self.body, **body}, blobs={**self.blobs, **blobs})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One verified reply that counts, while it is in memory."""

    site: SiteLink
    reply: ReplyHeader
    values: weights.Arrays
    blobs: Mapping[str, bytes]  # raw ones


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteAnswer:
    """What one site's part in an exchange was."""

    status: Status
    code: str | None
    seconds: float
    bytes_up: int
    bytes_down: int
    charged: bool = False  # it was sent what may have cost it: silent, late or lost, it may have done it
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a question ended."""

    state: RoundState
    seconds: float
    answers: Mapping[str, SiteAnswer]  # by site id, of every site asked
    late: Sequence[Late] = ()  # what came meanwhile, to this question or to earlier ones

    @property
    def participants(self) -> tuple[str, ...]:
        """Ids of the sites whose answers counted."""
        return self.state.having(Status.OK)

    @property
    def bytes_up(self) -> int:
        """Bytes received."""
        return sum(answer.bytes_up for answer in self.answers.values())

    @property
    def bytes_down(self) -> int:
        """Bytes sent."""
        return sum(answer.bytes_down for answer in self.answers.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What a phase takes: one site's values, or the sum over several.

    Of a sum, `delta/` and `loss` are weighted means, `weight` is the sum of the weights, and all else is a plain sum.
    """

    source: str  # site id, or the name of a group
    values: weights.Arrays
    sites: int


Take = Callable[[Contribution], None]
