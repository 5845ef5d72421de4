"""What is kept of a sum comes back as it was, under its own name alone, and fails closed when it is damaged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedsite.client.store import Outbox
from fedsite.client.sums.store import Kept, Place, SumStore
from fedsite.protocol.errors import IntegrityError, RefusalCode
from fedsite.protocol.secagg.context import NO_MODEL
from tests.secagg_cohort import RUN, Cohort

KEY = bytes(range(32))
PLACE = Place(run_id=RUN, round=1, purpose="train", attempt=1)


@pytest.fixture
def store(tmp_path: Any) -> SumStore:
    return SumStore(Outbox(tmp_path / "outbox"), KEY)


def test_every_stage_comes_back_as_it_was(store: SumStore) -> None:
    cohort = Cohort(3)
    one = cohort.ids[0]
    for step in (cohort.advertise, cohort.share, cohort.mask, cohort.unmask):
        step()
        kept = Kept(
            state=cohort.states[one], model_hash=NO_MODEL, identities=b"i" * 96, instruction="a" * 64, answer=b"x",
            vector="b" * 64,
        )  # fmt: skip
        store.save(PLACE, kept)
        assert store.load(PLACE) == kept
    assert store.load(replace(PLACE, attempt=2)) is None
    store.drop(PLACE)
    assert store.load(PLACE) is None
    store.drop(PLACE)


def test_attempts_of_one_purpose_are_found_in_order(store: SumStore) -> None:
    cohort = Cohort(3)
    cohort.advertise()
    kept = Kept(state=cohort.states[cohort.ids[0]])
    places = [
        replace(PLACE, round=number, attempt=attempt, purpose=purpose)
        for number, attempt, purpose in ((3, 1, "train"), (12, 1, "train"), (2, 2, "train"), (1, 1, "evaluate"))
    ]
    for place in reversed(places):
        store.save(place, kept)
    assert store.places(RUN, "train") == places[:3]
    assert store.places(RUN, "evaluate") == places[3:]
    assert store.places(RUN, "statistics") == []
    assert store.places("01BX5ZZKBKACTAV9WEVGEMMVRZ", "train") == []


def test_a_file_under_another_name_or_key_is_none(store: SumStore, tmp_path: Any) -> None:
    cohort = Cohort(3)
    cohort.advertise()
    store.save(PLACE, Kept(state=cohort.states[cohort.ids[0]]))
    folder = tmp_path / "outbox" / RUN
    other = replace(PLACE, attempt=2)
    (folder / f"{other.name}.sum").write_bytes((folder / f"{PLACE.name}.sum").read_bytes())
    with pytest.raises(IntegrityError) as error:
        store.load(other)
    assert error.value.refusal == RefusalCode.STORAGE
    with pytest.raises(IntegrityError):
        SumStore(Outbox(tmp_path / "outbox"), bytes(32)).load(PLACE)


def test_a_mark_says_the_last_round_of_each_purpose_and_fails_closed(store: SumStore, tmp_path: Any) -> None:
    assert store.opened(RUN, "train") == (-1, "")
    (tmp_path / "outbox" / RUN).mkdir()
    store.mark_opened(PLACE, "a" * 64)
    store.mark_opened(replace(PLACE, purpose="evaluate", round=0), "b" * 64)
    store.mark_opened(replace(PLACE, round=7), "c" * 64)
    assert store.opened(RUN, "train") == (7, "c" * 64)
    assert store.opened(RUN, "evaluate") == (0, "b" * 64)
    assert store.opened(RUN, "statistics") == (-1, "")
    path = tmp_path / "outbox" / RUN / "opened.json"
    whole = path.read_bytes()
    earlier = whole.replace(b'"train":[7,', b'"train":[6,')  # one bit: a round that was opened would be open again
    assert earlier != whole
    for damaged in (earlier, whole[:-1], b"", b"{", b"[]", b'{"train":[7,""]}'):
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match="damaged") as error:
            store.opened(RUN, "train")
        assert error.value.refusal == RefusalCode.STORAGE
