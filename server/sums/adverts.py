"""Keys for sums to come: collected while sites answer something else, so that a sum begins one trip later.

Rule: a site makes keys for a (round, purpose, attempt) once, and sends the same ones when it is asked again. Where it
may have made them for other terms, that attempt number is spoilt for the sum, and it takes the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fedsite.protocol.messages import NEXT, Purpose
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.server.link.transport import SiteLink
from fedsite.server.rounds.question import Answer, Question, Result, Upcoming
from fedsite.server.rounds.replies import ADVERT
from fedsite.server.sums import fields

_Place = tuple[int, Purpose, int]  # round, purpose, attempt


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one site was asked to make keys for."""

    terms: bytes  # hash of the manifest
    advert: bytes | None = None


class Adverts:
    """The keys that sites sent ahead; `attempt` tells the current attempt number."""

    def __init__(self, plan: RoundPlan, attempt: Callable[[], int]) -> None:
        self._plan = plan
        self._attempt = attempt
        self._asked: dict[_Place, dict[str, _Asked]] = {}
        self._last: tuple[Upcoming, Manifest] | None = None  # a manifest is asked for once for each site

    def carried(self, question: Question) -> Question:
        """The question with what sites need to know to send keys for the sum that follows it."""
        upcoming = question.following
        if upcoming is None:
            return question
        return question.carrying(*riding(self._manifest(upcoming), upcoming.round, self._attempt()))

    def take(self, question: Question, answer: Answer) -> None:
        """Keep an advert that rode on an answer; who signed it is looked at when it is used."""
        if question.following is not None and ADVERT in answer.blobs:
            asked = _Asked(self._manifest(question.following).hash, answer.blobs[ADVERT])
            self._asked.setdefault(self._place(question.following), {})[answer.site.site_id] = asked

    def sent(self, question: Question, result: Result) -> None:
        """Note who was asked for keys, and may have made some, without having sent them."""
        if question.following is None:
            return
        asked = self._asked.setdefault(self._place(question.following), {})
        terms = self._manifest(question.following).hash
        for site_id, answer in result.answers.items():
            if answer.bytes_down:
                asked.setdefault(site_id, _Asked(terms))

    def spoilt(self, terms: Manifest, round_number: int, sites: Iterable[SiteLink]) -> bool:
        """Whether one of these sites may hold keys for this attempt that were made for other terms."""
        asked = self._asked.get((round_number, terms.purpose, self._attempt()), {})
        return any(asked[site.site_id].terms != terms.hash for site in sites if site.site_id in asked)

    def pop(self, terms: Manifest, round_number: int) -> dict[str, bytes]:
        """Adverts for this sum by site id; whatever was collected for others is of no use any more."""
        found = self._asked.get((round_number, terms.purpose, self._attempt()), {})
        self._asked.clear()
        return {site: one.advert for site, one in found.items() if one.terms == terms.hash and one.advert is not None}

    def _manifest(self, upcoming: Upcoming) -> Manifest:
        if self._last is None or self._last[0] is not upcoming:
            self._last = (upcoming, fields.manifest(self._plan, upcoming.purpose, upcoming.expected))
        return self._last[1]

    def _place(self, upcoming: Upcoming) -> _Place:
        return (upcoming.round, upcoming.purpose, self._attempt())


def riding(terms: Manifest, round_number: int, attempt: int) -> tuple[dict[str, dict[str, int]], dict[str, bytes]]:
    """Body and blobs that ask a site for its keys."""
    return {NEXT: {"round": round_number, "attempt": attempt}}, {NEXT: terms.encode()}
