"""Keys for sums to come: kept for the very sum they were made for, and a number is spoilt when they were not."""

from __future__ import annotations

from pathlib import Path

from fedsite.protocol.messages import ReplyHeader
from fedsite.protocol.plan import ProtectionPlan
from fedsite.server.rounds.machine import RoundState, Rules, Status
from fedsite.server.rounds.question import Answer, Question, Result, SiteAnswer, Upcoming
from fedsite.server.rounds.replies import Expected
from fedsite.server.sums import fields
from fedsite.server.sums.adverts import Adverts
from tests.simulated_fleet import Play, SimulatedFleet

FLEET = SimulatedFleet(("north", "south"))
PLAN = Play(fleet=FLEET, folder=Path(), protection=ProtectionPlan(mode="secagg")).plan()
NORTH, SOUTH = (site.link for site in FLEET.all)
TRAIN = Upcoming(purpose="train", round=2, expected=Expected(required={"delta/w": (2,), "weight": (1,)}))
OTHER = Upcoming(purpose="train", round=2, expected=Expected(required={"delta/w": (3,), "weight": (1,)}))
TERMS, OTHER_TERMS = (fields.manifest(PLAN, "train", item.expected) for item in (TRAIN, OTHER))
RULES = Rules(minimum=0, deadline_s=1.0)


def question(following: Upcoming | None = TRAIN) -> Question:
    return Question(kind="prepare", round=0, rules=RULES, following=following)


def answer() -> Answer:
    reply = ReplyHeader(
        kind="prepare",
        federation="",
        site_id=NORTH.site_id,
        run_id="",
        round=0,
        attempt=1,
        instruction="",
        outcome="ok",
    )
    return Answer(site=NORTH, reply=reply, values={}, blobs={"advert": b"a" * 176})


def asked(attempt: list[int]) -> Adverts:
    """North sent keys for the second round, south was asked and stayed silent."""
    adverts = Adverts(PLAN, lambda: attempt[0])
    adverts.take(question(), answer())
    part = SiteAnswer(status=Status.SILENT, code=None, seconds=0.0, bytes_up=0, bytes_down=9)
    state = RoundState(number=0, attempt=1, rules=RULES, opened_at=0.0)
    adverts.sent(question(), Result(state=state, seconds=0.0, answers={NORTH.site_id: part, SOUTH.site_id: part}))
    return adverts


def test_a_question_carries_the_terms_of_the_sum_that_follows() -> None:
    carried = Adverts(PLAN, lambda: 7).carried(question())
    assert carried.body["next"] == {"round": 2, "attempt": 7}
    assert carried.blobs["next"] == TERMS.encode()
    assert Adverts(PLAN, lambda: 7).carried(question(None)) == question(None)


def test_keys_are_there_once_for_the_sum_they_were_made_for() -> None:
    adverts = asked([1])
    assert not adverts.spoilt(TERMS, 2, [NORTH, SOUTH])  # south sends the same keys when it is asked again
    assert adverts.pop(TERMS, 2) == {NORTH.site_id: b"a" * 176}
    assert adverts.pop(TERMS, 2) == {}


def test_other_terms_spoil_the_number_and_the_next_one_is_clean() -> None:
    attempt = [1]
    adverts = asked(attempt)
    assert adverts.spoilt(OTHER_TERMS, 2, [SOUTH])
    attempt[0] = 2
    assert not adverts.spoilt(OTHER_TERMS, 2, [NORTH, SOUTH])
    assert adverts.pop(OTHER_TERMS, 2) == {}


def test_keys_of_another_round_are_not_taken() -> None:
    assert asked([1]).pop(TERMS, 3) == {}
