"""One attempt at the secure sums of a question: the stages of SA-1, each one exchange for all groups side by side.

advertise → share → mask → (confirm) → unmask. A site that is lost in a stage, or sends what its group's sum refuses,
is out of that sum from there on; a group with too few sites left falls out, and the stage says why. One masked vector
is in memory at a time.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.messages import CONTROL
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.secagg.advert import SIZE as ADVERT_BYTES
from fedsite.protocol.secagg.advert import Advert
from fedsite.protocol.secagg.context import NO_MODEL, Attempt, corrected
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.protocol.secagg.server import Sum
from fedsite.server.link.transport import SiteLink
from fedsite.server.rounds.exchange import Exchange
from fedsite.server.rounds.machine import Rules
from fedsite.server.rounds.question import Answer, Question, Result
from fedsite.server.rounds.replies import ADVERT, Expected
from fedsite.server.sums.adverts import Adverts, riding
from fedsite.server.sums.groups import NOTHING, Group, Parcel, most_groups

Stage = Literal["advertise", "share", "mask", "confirm", "unmask"]
_Exchanged = Literal["advertise", "share", "confirm", "unmask"]
STOPPED: Final = "the run was stopped"

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Stages:
    """One attempt; `run` goes as far as it can."""

    plan: RoundPlan
    exchange: Exchange
    adverts: Adverts
    stopping: Callable[[], bool]
    question: Question
    terms: Manifest
    sites: Sequence[SiteLink]
    groups: list[Group] = field(default_factory=list)
    trips: list[tuple[Stage, Result]] = field(default_factory=list)
    wrong: set[str] = field(default_factory=set)  # ids of sites whose keys, or shares, are of no use
    opening: bool = False  # sites were asked to open: there is no second attempt
    failed: str = ""  # why there is no group at all

    @property
    def living(self) -> list[Group]:
        """Groups that have not fallen out."""
        return [group for group in self.groups if not group.failed]

    @property
    def attempt(self) -> Attempt:
        """What keys are bound to."""
        return Attempt(
            run_id=self.plan.run_id,
            round=self.question.round,
            attempt=self.exchange.attempt,
            manifest_hash=self.terms.hash,
        )

    @property
    def _model(self) -> bytes:
        """What the session is bound to: the model, and the correction that is sent beside it."""
        model, control = bytes.fromhex(self.question.model_hash) or NO_MODEL, self.question.blobs.get(CONTROL)
        return model if control is None else corrected(model, control)

    def run(self) -> None:
        """All stages."""
        self._form(self._advertise())
        for stage in (self._share, self._mask, self._confirm, self._unmask):
            if self.stopping():
                self._fail(STOPPED)
            if self.living:
                stage()

    def reason(self) -> str:
        """Why nothing came of it."""
        return self.failed or "; ".join(dict.fromkeys(group.failed for group in self.groups if group.failed))

    def _advertise(self) -> dict[str, bytes]:
        """Keys by site id: those that came ahead, and those of the sites that are asked now."""
        ahead, found = self.adverts.pop(self.terms, self.question.round), {}
        for site in self.sites:
            try:
                if site.site_id in ahead:
                    found[site.site_id] = self._checked(site, ahead[site.site_id])
            except FedsiteError as error:
                _log.warning("keys of site %s do not count: %s", site.name, error)
        missing = [site for site in self.sites if site.site_id not in found]
        if missing:
            body, blobs = riding(self.terms, self.question.round, self.exchange.attempt)
            sizes = {site.site_id: {ADVERT: ADVERT_BYTES} for site in missing}
            question = self._question("advertise", max(0, self.least - len(found)), Parcel({}, sizes))

            def take(answer: Answer) -> None:
                found[answer.site.site_id] = self._checked(answer.site, answer.blobs[ADVERT])

            self.trips.append(("advertise", self.exchange.ask(question.carrying(body, blobs), missing, take)))
        return found

    def _checked(self, site: SiteLink, raw: bytes) -> bytes:
        Advert(raw).check(self.attempt.adv_ctx, site.public_key)
        return raw

    def _form(self, keys: Mapping[str, bytes]) -> None:
        """Cut the sites into groups, nobody knows which beforehand, and settle U1 of each."""
        ready = [site for site in self.sites if site.site_id in keys]
        least = self.least
        if len(ready) < least:
            self.failed = f"advertise: {len(ready)} of {len(self.sites)} sites answered, {least} needed"
            return
        room = len(ready) // self.terms.terms.min_cohort
        count = max(1, min(most_groups(self.plan, self.terms.purpose), room))
        if count > 1:
            secrets.SystemRandom().shuffle(ready)
        model = self._model
        for number in range(count):
            links = ready[number::count]
            group = Group(
                name=f"group-{number + 1}",
                sum=Sum(manifest=self.terms, attempt=self.attempt, model_hash=model),
                sites={bytes.fromhex(link.site_id): link for link in links},
            )
            self.groups.append(group)
            taken = sum(self._adds(group, site, keys[link.site_id]) for site, link in group.sites.items())
            group.close("advertise", taken, len(links), self.terms.terms.min_cohort, group.sum.close_adverts)

    def _adds(self, group: Group, site: bytes, raw: bytes) -> bool:
        link = group.sites[site]
        try:
            group.sum.add_advert(site, raw, {site: link.public_key})
        except FedsiteError as error:
            _log.warning("keys of site %s do not count: %s", link.name, error)
            self.wrong.add(link.site_id)
            return False
        return True

    def _share(self) -> None:
        living = self.living
        question = self._question("share", self._least(living), _parcels(living, Group.to_share))
        question = replace(question, model_hash=self._model.hex() if self.question.model_hash else "")
        result = self._trip("share", "shares", question, living, Group.take_shares)
        for group in living:
            group.close("share", *_answered(result, group.roster), self._needed(group), group.sum.close_shares)

    def _mask(self) -> None:
        living, rules = self.living, self.question.rules
        parcel = _parcels(living, Group.to_mask)
        goal = rules.goal if len(living) == 1 and (rules.goal or 0) <= len(parcel.sizes) else None
        question = replace(
            self.question,
            rules=Rules(minimum=self._least(living), goal=goal, deadline_s=rules.deadline_s),
            each=parcel.blobs,
            sizes=parcel.sizes,
            expected=Expected(),
            following=None,
        )
        result = self._trip("mask", "masked", question, living, Group.take_vector)
        for group in living:
            group.close("mask", *_answered(result, group.sum.u2), self._needed(group), group.sum.close_vectors)
        left = sum(len(group.sum.u3) for group in self.living)
        if left < rules.minimum:
            self._fail(f"mask: {left} of {len(parcel.sizes)} sites are left, {rules.minimum} needed")

    def _confirm(self) -> None:
        groups = [group for group in self.living if group.sum.stage == "confirm"]
        if not groups:
            return
        question = self._question("confirm", 1, _parcels(groups, Group.to_confirm))
        result = self._trip("confirm", "confirmation", question, groups, Group.take_confirmation)
        for group in groups:
            quorum = self.terms.terms.quorum(len(group.roster))
            group.close("confirm", *_answered(result, group.sum.u3), quorum, group.confirm)

    def _unmask(self) -> None:
        living = self.living
        question = replace(
            self._question("unmask", 1, _parcels(living, Group.to_unmask)),
            following=self.question.following,
            enough=lambda: all(group.sum.can_open for group in living),
        )
        self.opening = True
        result = self._trip("unmask", "opened", self.adverts.carried(question), living, Group.take_opened)
        self.adverts.sent(question, result)
        for group in living:
            needed = 0 if group.sum.can_open else group.threshold
            group.close("unmask", *_answered(result, group.sum.u3), needed, group.open)
            self.wrong.update(site.hex() for site in group.sum.at_fault)

    def _trip(
        self,
        stage: Stage,
        blob: str,
        question: Question,
        groups: Sequence[Group],
        take: Callable[[Group, bytes, bytes], None],
    ) -> Result:
        """Ask the sites of these groups that get a parcel, and hand each answer to its group."""
        of = {site.hex(): group for group in groups for site in group.sites if site.hex() in question.sizes}

        def hand(answer: Answer) -> None:
            site = answer.site.site_id
            take(of[site], bytes.fromhex(site), answer.blobs[blob])
            self.adverts.take(question, answer)

        result = self.exchange.ask(question, [group.sites[bytes.fromhex(site)] for site, group in of.items()], hand)
        self.trips.append((stage, result))
        return result

    def _question(self, kind: _Exchanged, least: int, parcel: Parcel) -> Question:
        """A stage that reads no data."""
        return Question(
            kind=kind,
            purpose=self.terms.purpose,
            round=self.question.round,
            rules=Rules(minimum=least, deadline_s=self.plan.protection.stage_s),
            each=parcel.blobs,
            sizes=parcel.sizes,
        )

    @property
    def least(self) -> int:
        """Sites without which there is no sum to begin with."""
        return max(self.terms.terms.min_cohort, self.question.rules.minimum)

    def _needed(self, group: Group) -> int:
        return group.needed(self.question.rules.minimum if len(self.groups) == 1 else 0)

    def _least(self, groups: Sequence[Group]) -> int:
        """Answers without which no group can go on."""
        return min(self._needed(group) for group in groups)

    def _fail(self, reason: str) -> None:
        for group in self.living:
            group.failed = reason


def _parcels(groups: Sequence[Group], make: Callable[[Group], Parcel]) -> Parcel:
    parcel = NOTHING
    for group in groups:
        parcel = parcel | make(group)
    return parcel


def _answered(result: Result, asked: Sequence[bytes]) -> tuple[int, int]:
    """Sites of these that answered, and how many they are."""
    return len({site.hex() for site in asked} & set(result.participants)), len(asked)
