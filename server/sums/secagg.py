"""Secure sums in the place of an exchange: the same question, the same kind of result, and no site's values anywhere.

A sum that failed before any site was asked to open is tried again with fresh keys, under the next attempt number; once
sites were asked to open, or to mask values whose noise is the sum's (privacy per site), there is no second attempt.
What is journalled of a sum is who was in it and hashes of what was sent: never keys, shares or masked vectors.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, cast, get_args

from fedsite.protocol import shape, weights
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.keys import SIGNATURE_BYTES
from fedsite.protocol.messages import Purpose
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.secagg import context
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.protocol.secagg.masking import Ring
from fedsite.server.link.transport import Link, SiteLink
from fedsite.server.rounds.exchange import Exchange
from fedsite.server.rounds.question import Contribution, Question, Result, Take
from fedsite.server.runs.journal import Journal
from fedsite.server.sums import fields, merging
from fedsite.server.sums.adverts import Adverts
from fedsite.server.sums.groups import Group, most_groups
from fedsite.server.sums.stages import Stages

POLL_S = 0.2  # between looks at who is online, seconds

_log = logging.getLogger(__name__)


class SecureSums:
    """Asks for sums in the name of one run."""

    def __init__(
        self,
        *,
        plan: RoundPlan,
        exchange: Exchange,
        link: Link,
        journal: Journal,
        note: Callable[[dict[str, Any]], None],
        stopping: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """`note` is given the facts of every sum, as the journal has them."""
        self._plan = plan
        self._exchange = exchange
        self._link = link
        self._journal = journal
        self._note = note
        self._stopping = stopping
        self._clock = clock
        self._wait = wait
        self.adverts = Adverts(plan, lambda: exchange.attempt)
        self.sent_away: set[str] = set()  # ids of sites whose shares gave no secret: no sum with them can be opened

    def ask(self, question: Question, sites: Sequence[SiteLink], take: Take | None) -> Result:
        """Sum what `question` asks for over `sites`, best first, and hand the sum of each group to `take`."""
        started = self._clock()
        terms = fields.manifest(self._plan, cast(Purpose, question.kind), question.expected)
        chosen = self._chosen(question, sites, terms)
        if self.adverts.spoilt(terms, question.round, chosen):
            self._exchange.renew()
        tried: list[Stages] = []
        for left in range(self._plan.protection.retries, -1, -1):
            stages = Stages(
                plan=self._plan,
                exchange=self._exchange,
                adverts=self.adverts,
                stopping=self._stopping,
                question=question,
                terms=terms,
                sites=chosen,
            )
            stages.run()
            opened = self._opened(stages, terms)
            tried.append(stages)
            for group in stages.groups:
                self._record(stages, group)
                self.sent_away.update(site.hex() for site in group.sum.at_fault)
            chosen = self._again(stages) if left and self._may_retry(stages) and not self._stopping() else []
            if len(chosen) < stages.least or not self._exchange.renew():
                break
            _log.warning("%s of round %s is tried again: %s", question.kind, question.round, stages.reason())
        if take is not None:
            for group, values in opened:
                take(Contribution(source=group.name, values=values, sites=len(group.sum.u3)))
        return merging.merged(question, tried, started=started, seconds=self._clock() - started)

    def _chosen(self, question: Question, sites: Sequence[SiteLink], terms: Manifest) -> list[SiteLink]:
        """As many as the rules want, and no more than the scale of a sum leaves room for."""
        wanted, found, rules = len(sites), list(sites), question.rules
        if rules.goal is not None:
            wanted = math.ceil(rules.goal * rules.over_select)
        room = terms.sites * most_groups(self._plan, terms.purpose)
        if rules.goal is None and len(found) > room:
            secrets.SystemRandom().shuffle(found)
        return found[: min(wanted, room)]

    def _opened(self, stages: Stages, terms: Manifest) -> list[tuple[Group, weights.Arrays]]:
        """The values of every group that was opened; a sum that cannot be is as good as none."""
        found = []
        for group in stages.living:
            try:
                found.append((group, fields.decode(self._plan, terms, group.sum.total, len(group.sum.u3))))
            except FedsiteError as error:
                group.failed = f"unmask: {error}"
        return found

    def _may_retry(self, stages: Stages) -> bool:
        """Whether nobody was asked to open, nor, where each attempt draws and pays for other noise, to mask."""
        masked = any(stage == "mask" for stage, _ in stages.trips)
        return not stages.opening and not (masked and self._plan.privacy.site_level)

    def _again(self, stages: Stages) -> list[SiteLink]:
        """Sites to try again with: not lost by their own doing, and online by the end of the wait for sites."""
        given_up = merging.at_fault(stages)
        left = [site for site in stages.sites if site.site_id not in given_up]
        end = self._clock() + self._plan.rounds.wait_s
        while True:
            online = {site.site_id: site for site in self._link.sites()}
            found = [online[site.site_id] for site in left if site.site_id in online]
            enough = len(found) >= stages.least or len(left) < stages.least
            if enough or self._clock() >= end or self._stopping():
                return found
            self._wait(POLL_S)

    def _record(self, stages: Stages, group: Group) -> None:
        """One event for each sum."""
        total, question = group.sum, stages.question
        ids = {site.hex() for site in group.sites}
        facts = {
            "round": question.round,
            "purpose": stages.terms.purpose,
            "attempt": total.attempt.attempt,
            "group": group.name,
            "outcome": "failed" if group.failed else "opened",
            "reason": group.failed,
            "words": stages.terms.words,
            "manifest_hash": stages.terms.hash.hex(),
            "model_hash": total.model_hash.hex(),
            "roster_hash": context.roster_hash([advert.raw for advert in total.roster.adverts]).hex(),
            "u1": group.names(total.roster.sites),
            "u2": group.names(total.u2),
            "u3": group.names(total.u3),
            "masked": dict(sorted(group.masked.items())),
            "at_fault": group.names(total.at_fault),
            "total": "" if group.failed else _digest(total.total),
            "stages": merging.of_sites(stages, ids),
        }
        self._exchange.trail.note(
            "sum", {**_audited(group, question.round), "plan": self._plan.hash, "total": facts["total"]}
        )
        self._journal.record("sum", **facts)
        self._note(facts)


def _audited(group: Group, number: int) -> dict[str, Any]:
    """What the audit log says of one secure sum: all that its session was bound to, who was in it, what came back.

    Signatures, ids and hashes; never keys, shares or masked vectors.
    """
    total, manifest = group.sum, group.sum.manifest
    names = {link.name: site.hex() for site, link in group.sites.items()}
    adverts = total.roster.adverts
    return {
        "round": number,
        "purpose": manifest.purpose,
        "attempt": total.attempt.attempt,
        "group": group.name,
        "outcome": "failed" if group.failed else "opened",
        "reason": group.failed,
        "manifest_hash": manifest.hash.hex(),
        "terms": shape.plain(manifest.terms),
        "noise": shape.plain(manifest.noise),
        "model_hash": total.model_hash.hex(),
        "session": total.session.hex(),
        "roster_hash": context.roster_hash([advert.raw for advert in adverts]).hex(),
        "u1": {advert.site.hex(): advert.raw[-SIGNATURE_BYTES:].hex() for advert in adverts},
        "u2": [site.hex() for site in total.u2],
        "u3": [site.hex() for site in total.u3],
        "sets": {
            "u1": context.set_hash(total.roster.sites).hex(),
            "u2": context.set_hash(total.u2).hex(),
            "u3": context.set_hash(total.u3).hex(),
        },
        "confirmed": {site.hex(): signature.hex() for site, signature in group.confirmed.items()},
        "masked": {names[name]: digest for name, digest in sorted(group.masked.items())},
        "at_fault": [site.hex() for site in total.at_fault],
    }


def _digest(total: Ring) -> str:
    """SHA-256 of an opened sum as it stands in the ring, hex."""
    return hashlib.sha256(total.astype("<u4", copy=False).data).hexdigest()


def asks_for_sum(plan: RoundPlan, question: Question) -> bool:
    """Whether the values that answer this question leave the sites masked."""
    return plan.protection.mode == "secagg" and question.kind in get_args(Purpose)
