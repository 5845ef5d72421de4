"""Decisions of people: bound to a plan, or to its recipe; a damaged file decides nothing and stays where it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsite.client.consent import approvals, history
from fedsite.client.consent.approvals import Approvals, check
from fedsite.protocol.errors import ConfigError, PolicyError, RefusalCode, StorageError
from fedsite.protocol.plan import RoundPlan, RoundsPlan

SECOND = "01BX5ZZKBKACTAV9WEVGEMMVRZ"
NOW = "2026-03-01T12:00:00Z"
LATER = "2026-03-01T12:00:01Z"


@pytest.fixture
def store(tmp_path: Path) -> Approvals:
    return Approvals(tmp_path / approvals.FOLDER)


@pytest.fixture
def plan(centre: Any) -> RoundPlan:
    return centre.plan()


@pytest.fixture
def again(centre: Any) -> RoundPlan:
    """The same run launched again."""
    return centre.plan(run_id=SECOND, created=LATER, seed=7)


def refused(plan: RoundPlan, mode: Any, store: Approvals) -> RefusalCode | None:
    try:
        check(plan, mode, store)
    except PolicyError as error:
        return error.refusal
    return None


def test_automatic_asks_nobody_and_still_hears_a_no(store: Approvals, plan: RoundPlan, again: RoundPlan) -> None:
    assert refused(plan, "automatic", store) is None
    store.decide(plan, "rejected", by="ada", now=NOW)
    assert refused(plan, "automatic", store) == RefusalCode.POLICY
    assert refused(again, "automatic", store) is None


def test_once_holds_for_the_recipe(store: Approvals, plan: RoundPlan, again: RoundPlan, centre: Any) -> None:
    assert refused(plan, "once", store) == RefusalCode.APPROVAL
    store.decide(plan, "approved", by="ada", now=NOW)
    assert (refused(plan, "once", store), refused(again, "once", store)) == (None, None)
    found = check(again, "once", store)
    assert found is not None
    assert (found.plan_hash, found.by) == (plan.hash, "ada")
    assert refused(centre.plan(rounds=RoundsPlan(count=4)), "once", store) == RefusalCode.APPROVAL


def test_each_holds_for_the_plan_alone(store: Approvals, plan: RoundPlan, again: RoundPlan) -> None:
    store.decide(plan, "approved", by="ada", now=NOW)
    assert refused(plan, "each", store) is None
    assert refused(again, "each", store) == RefusalCode.APPROVAL


@pytest.mark.parametrize("at", [NOW, LATER])
def test_the_newest_word_about_a_recipe_counts(store: Approvals, plan: RoundPlan, again: RoundPlan, at: str) -> None:
    store.decide(plan, "approved", by="ada", now=NOW)
    store.decide(again, "rejected", by="bob", now=at)
    third = RoundPlan(**{**vars_of(plan), "run_id": "01CX5ZZKBKACTAV9WEVGEMMVRZ"})
    assert refused(third, "once", store) == RefusalCode.APPROVAL
    # This very plan was agreed to, and goes on.
    assert refused(plan, "once", store) is None


def test_the_newest_word_is_not_the_clock_s(store: Approvals, plan: RoundPlan, again: RoundPlan, centre: Any) -> None:
    """A yes from when the clock was years ahead does not outlive the no that came after it."""
    store.decide(plan, "approved", by="ada", now="2036-01-01T00:00:00Z")
    store.decide(again, "rejected", by="ada", now=NOW)
    third = centre.plan(run_id="01CX5ZZKBKACTAV9WEVGEMMVRZ")
    assert refused(third, "once", store) == RefusalCode.APPROVAL
    store.decide(third, "approved", by="ada", now="2025-01-01T00:00:00Z")
    assert refused(centre.plan(run_id="01DX5ZZKBKACTAV9WEVGEMMVRZ"), "once", store) is None


def test_a_damaged_answer_keeps_nobody_from_saying_no(store: Approvals, plan: RoundPlan, again: RoundPlan) -> None:
    store.decide(plan, "approved", by="ada", now=NOW)
    (store.directory / f"{plan.hash}.decision").write_bytes(b"{")
    store.decide(again, "rejected", by="ada", now=NOW)
    assert refused(again, "automatic", store) == RefusalCode.POLICY


def test_a_person_may_think_again(store: Approvals, plan: RoundPlan) -> None:
    store.decide(plan, "rejected", by="ada", now=NOW)
    store.decide(plan, "approved", by="ada", now=LATER)
    assert refused(plan, "each", store) is None


def test_a_run_s_life_is_told(store: Approvals, plan: RoundPlan, again: RoundPlan, tmp_path: Path) -> None:
    store.note(plan, NOW)
    assert [history.state(known, None) for known in store.known()] == ["waiting"]
    decision = store.decide(plan, "approved", by="ada", now=NOW)
    assert [history.state(known, decision) for known in store.known()] == ["approved"]
    store.note(plan, LATER, accepted=True)
    store.note(plan, "2027-01-01T00:00:00Z", accepted=True)
    assert [(known.asked, known.accepted) for known in store.known()] == [(NOW, LATER)]
    assert history.previous(tmp_path, again) == plan
    store.end(plan.run_id, "completed", LATER)
    store.end(SECOND, "completed", LATER)
    assert [history.state(known, decision) for known in store.known()] == ["ended"]
    assert (
        history.find(tmp_path, "latest") == history.find(tmp_path, plan.run_id[:8]) == history.find(tmp_path, plan.hash)
    )
    with pytest.raises(ConfigError) as error:
        history.find(tmp_path, "nothing")
    assert plan.run_id in error.value.allowed
    assert history.value(tmp_path)["rounds"][0]["decided"] == {"verdict": "approved", "by": "ada", "at": NOW}


def test_who_asks_for_runs_cannot_fill_the_disk(store: Approvals, centre: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "KEPT", 3)
    plans = [centre.plan(seed=number) for number in range(6)]
    for number, plan in enumerate(plans):
        store.note(plan, f"2026-03-{1 + 8 * number // 2:02}T12:00:00Z")
    store.decide(plans[0], "rejected", by="ada", now=NOW)
    assert [known.plan.seed for known in store.known()] == [3, 4, 5]
    assert refused(plans[0], "automatic", store) == RefusalCode.POLICY
    monkeypatch.setattr(approvals, "PLAN_BYTES", 100)
    with pytest.raises(Exception, match="bytes") as error:
        store.note(centre.plan(seed=9), NOW)
    assert error.value.refusal == RefusalCode.TOO_LARGE


def test_a_plan_that_a_person_has_read_is_not_pushed_out_and_replaced(
    store: Approvals, centre: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Otherwise the yes to a run's id would be one to the other plan that came under that id meanwhile."""
    monkeypatch.setattr(approvals, "KEPT", 3)
    shown, *others = [centre.plan(seed=number) for number in range(6)]
    store.note(shown, NOW)
    store.end(shown.run_id, "gone", NOW)  # the centre's word moves nothing either
    found = [told(lambda other=other: store.note(other, LATER)) for other in others]
    assert [bool(text) for text in found] == [False, False, True, True, True]
    assert shown in [known.plan for known in store.known()]
    with pytest.raises(ConfigError, match="names 3 plans"):
        history.find(tmp_path, shown.run_id)
    assert told(lambda: store.note(shown, LATER)) == ""  # asked again
    # Where a person is not needed, the flood keeps nobody out; what was decided makes room.
    store.note(others[3], LATER, accepted=True)
    store.decide(others[0], "rejected", by="ada", now=LATER)
    store.note(others[4], LATER)
    assert {known.plan.seed for known in store.known()} == {0, 2, 5}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=400), cut=st.integers(0, 400), kind=st.sampled_from(["decision", "run"]))
def test_a_damaged_file_is_named_and_kept(
    store: Approvals, plan: RoundPlan, again: RoundPlan, data: bytes, cut: int, kind: str
) -> None:
    store.note(plan, NOW)
    store.decide(plan, "approved", by="ada", now=NOW)
    path = store.directory / f"{plan.hash}.{kind}"
    whole = path.read_bytes()
    for broken in (data, whole[: cut % len(whole)], whole[:cut] + data + whole[cut:]):
        path.write_bytes(broken)
        text = told(lambda: check(again, "once", store) if kind == "decision" else store.note(plan, LATER))
        assert path.read_bytes() == broken
        # Named, or about something else, or still the same word about the same recipe.
        assert str(path) in text or "nobody has decided" in text or (not text and says_the_same(broken, whole))
        store.known()  # what can be read is still told
    path.write_bytes(whole)
    assert refused(again, "once", store) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_makes_a_no_a_yes(
    store: Approvals, plan: RoundPlan, again: RoundPlan, at: int, bit: int
) -> None:
    store.decide(plan, "rejected", by="ada", now=NOW)
    path = store.directory / f"{plan.hash}.decision"
    whole = bytearray(path.read_bytes())
    whole[at % len(whole)] ^= 1 << bit
    path.write_bytes(bytes(whole))
    assert refused(again, "once", store) == RefusalCode.APPROVAL
    assert refused(plan, "each", store) in (RefusalCode.APPROVAL, RefusalCode.POLICY)


def told(act: Callable[[], object]) -> str:
    """What is refused with, empty where nothing is."""
    try:
        act()
    except (PolicyError, StorageError) as error:
        return str(error)
    return ""


def says_the_same(broken: bytes, whole: bytes) -> bool:
    first, second = json.loads(broken), json.loads(whole)
    return all(first.get(name) == second.get(name) for name in ("recipe", "verdict", "plan_hash", "plan"))


def vars_of(plan: RoundPlan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in RoundPlan.__dataclass_fields__}


def test_plans_that_wait_are_few_bytes_together(store: Approvals, centre: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the runs reads all of them."""
    plans = [centre.plan(seed=number) for number in range(6)]
    size = len(plans[0].encode()) + 200
    monkeypatch.setattr(approvals, "PLAN_BYTES", size)
    monkeypatch.setattr(approvals, "KEPT_BYTES", 3 * size)
    found = [told(lambda plan=plan: store.note(plan, NOW)) for plan in plans]
    assert [bool(text) for text in found] == [False] * 3 + [True] * 3
    for plan in plans[3:]:
        store.note(plan, "2026-03-09T12:00:00Z")  # what waited for more than a week makes room
    assert {known.plan.seed for known in store.known()} == {3, 4, 5}
