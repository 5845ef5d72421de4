"""A manifest says nothing that the accepted plan has not said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedsite.client.sums import terms
from fedsite.protocol.errors import DocumentError, IntegrityError, PolicyError, RefusalCode
from fedsite.protocol.plan import PrivacyPlan, ProtectionPlan, SitePrivacyPlan
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest, Noise, Terms

LIMIT = 1 << 20
DELTA = Field(name="delta/weight", shape=(3,), bound=4.0)


def weighted(*fields: Field) -> tuple[Field, ...]:
    return tuple(replace(field, weighted=True) for field in fields)


@pytest.fixture
def plan(party: Any) -> Any:
    return party.plan


@pytest.fixture
def open_plan(party: Any) -> Any:
    """Without privacy."""
    return party.centre.plan(privacy=PrivacyPlan(), protection=party.plan.protection)


def of(plan: Any, *fields: Field, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "purpose": "train",
        "plan_hash": plan.hash,
        "sites": plan.protection.sites,
        "fields": fields or (DELTA,),
        "terms": plan.protection.terms,
    }
    return Manifest(**(values | changes))


def test_what_the_plan_announced_passes(party: Any, plan: Any, open_plan: Any) -> None:
    for purpose in ("statistics", "train", "evaluate", "calibrate"):
        terms.check(party.manifest(purpose), plan, limit=LIMIT)
    fields = weighted(DELTA, Field(name="loss", shape=(1,), bound=1e4), Field(name="weight", shape=(1,), bound=1.0))
    terms.check(of(open_plan, *fields, examples_max=1 << 16), open_plan, limit=LIMIT)
    parity = Field(name="parity/count", shape=(1,), bound=65536.0, wide=True)
    terms.check(of(open_plan, parity, purpose="evaluate"), open_plan, limit=LIMIT)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plan_hash": "0" * 64}, "plan is"),
        ({"sites": 4}, "sites is 4"),
        ({"terms": Terms(min_cohort=3, min_survivors=2)}, "terms is"),
        ({"terms": Terms(stream="chacha20")}, "terms is"),
        ({"examples_max": 7}, "examples_max is 7"),
        ({"fields": (replace(DELTA, bound=8.0),)}, "bound of delta/weight is 8"),
        ({"fields": (replace(DELTA, weighted=True),), "examples_max": 1 << 16}, "weight of delta/weight"),
        ({"fields": (DELTA, Field(name="weight", shape=(1,), bound=1.0))}, "value weight"),
        ({"fields": (DELTA, Field(name="loss", shape=(1,), bound=1.0))}, "value loss"),
        ({"fields": (Field(name="statistics/sum", shape=(1,), bound=1.0),)}, "value statistics/sum"),
        ({"fields": (Field(name="windows", shape=(1,), bound=1.0),)}, "value windows"),
        ({"fields": (Field(name="parity/count", shape=(1,), bound=1.0),), "purpose": "evaluate"}, "value parity"),
        ({"noise": (Noise(prefix="delta/", clip=4.0, multiplier=1.0),)}, "noise is"),
    ],
)
def test_what_it_did_not_is_refused(plan: Any, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DocumentError, match=words) as error:
        terms.check(of(plan, **changes), plan, limit=LIMIT)
    assert error.value.refusal == RefusalCode.PLAN_INVALID


def test_without_privacy_updates_go_by_their_weight(open_plan: Any) -> None:
    for fields in ((DELTA,), weighted(Field(name="evaluation/count", shape=(1,), bound=1.0))):
        with pytest.raises(DocumentError, match="weight of"):
            terms.check(of(open_plan, *fields, examples_max=1 << 16), open_plan, limit=LIMIT)
    heavy = weighted(DELTA, Field(name="weight", shape=(1,), bound=100.0))
    with pytest.raises(DocumentError, match="bound of weight"):
        terms.check(of(open_plan, *heavy, examples_max=1 << 16), open_plan, limit=LIMIT)


def test_noise_that_the_plan_promises_may_not_be_left_out(party: Any) -> None:
    site = SitePrivacyPlan(noise_multiplier=1.0, clip=2.0)
    plan = party.centre.plan(privacy=PrivacyPlan(mode="site", site=site), protection=party.plan.protection)
    with pytest.raises(DocumentError, match="noise is") as error:
        terms.check(of(plan, DELTA), plan, limit=LIMIT)
    assert error.value.refusal == RefusalCode.PLAN_INVALID


def test_a_vector_larger_than_a_message_may_be_is_refused(plan: Any) -> None:
    with pytest.raises(IntegrityError) as error:
        terms.check(of(plan, replace(DELTA, shape=(1 << 20,))), plan, limit=LIMIT)
    assert error.value.refusal == RefusalCode.TOO_LARGE


def test_other_protections_have_no_sums(plan: Any, party: Any) -> None:
    for mode in ("sealed", "none"):
        other = party.centre.plan(protection=ProtectionPlan(mode=mode))
        with pytest.raises(PolicyError) as error:
            terms.check(of(plan), other, limit=LIMIT)
        assert error.value.refusal == RefusalCode.PROTECTION


@pytest.mark.parametrize(
    ("purpose", "good", "bad"),
    [("statistics", [0], [1]), ("train", [1, 3], [0, 4]), ("evaluate", [0, 3], [4]), ("calibrate", [3], [4])],
)
def test_rounds_are_those_of_the_plan(plan: Any, purpose: str, good: list[int], bad: list[int]) -> None:
    for number in good:
        terms.check_round(plan, purpose, number)
    for number in bad:
        with pytest.raises(DocumentError) as error:
            terms.check_round(plan, purpose, number)
        assert error.value.refusal == RefusalCode.WRONG_RUN


def test_updates_are_of_the_model_s_parameters(plan: Any) -> None:
    terms.check_deltas(of(plan), {"delta/weight": (3,)})
    terms.check_deltas(of(plan, Field(name="statistics/sum", shape=(1,), bound=1.0), purpose="statistics"), {})
    for shapes in ({}, {"delta/weight": (4,)}, {"delta/weight": (3,), "delta/bias": (1,)}):
        with pytest.raises(DocumentError, match="field delta") as error:
            terms.check_deltas(of(plan), shapes)
        assert error.value.refusal == RefusalCode.PLAN_INVALID
