"""What a site looks at before it takes part: who is in the cohort, on which model, and how many are left."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fedsite.protocol import certified
from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.keys import SigningKey, TlsKey
from fedsite.protocol.messages import Frame
from fedsite.protocol.plan import ProtectionPlan
from fedsite.protocol.secagg.manifest import Terms
from tests.authority import AUTHORITY


def test_identities_that_the_federation_did_not_certify_are_refused(party: Any) -> None:
    party.reach("share")
    kit = party.kits[0]
    blobs = {"roster": party.sum.roster.raw, "identities": party.certificates()}
    hashes = {"model_hash": party.model_hash}
    own = party.certificates()[:104]

    def asked(identities: bytes) -> Frame:
        return party.stage(kit, "share", {**blobs, "identities": identities}, **hashes)

    forged = party.certificates(TlsKey.generate())
    assert party.refusal(kit, asked(forged)) == RefusalCode.SIGNATURE
    assert party.refusal(kit, asked(own + forged[104:])) == RefusalCode.SIGNATURE
    assert party.refusal(kit, asked(blobs["identities"][:208] + own)) == RefusalCode.SIGNATURE  # another's identity
    assert party.refusal(kit, asked(blobs["identities"][:208])) == RefusalCode.MALFORMED
    party.lifetime = timedelta(seconds=-1)
    assert party.refusal(kit, asked(party.certificates())) == RefusalCode.SIGNATURE
    party.lifetime = timedelta(days=1)
    assert "shares" in party.answer(kit, asked(party.certificates()))


def test_a_cohort_with_another_s_keys_for_a_site_is_refused(party: Any) -> None:
    party.reach("share")
    kit, last = party.kits[0], party.kits[2]
    raw = party.sum.roster.raw
    made_up = SigningKey.generate()
    expires = kit.now + party.lifetime
    identity = certified.issue(made_up.public, expires, party.plan.federation, AUTHORITY.key)
    identities = party.certificates()[:208] + identity
    blobs = {"roster": raw, "identities": identities}
    asked = party.stage(kit, "share", blobs, model_hash=party.model_hash)
    assert party.refusal(kit, asked) == RefusalCode.SIGNATURE
    blobs = {"roster": raw[:384] + bytes(32) + raw[416:], "identities": party.certificates()}
    asked = party.stage(last, "share", blobs, model_hash=party.model_hash)
    assert party.refusal(last, asked) == RefusalCode.MALFORMED  # of ours
    asked = party.stage(kit, "share", blobs, model_hash=party.model_hash)
    assert party.refusal(kit, asked) == RefusalCode.SIGNATURE  # of a neighbour


def test_a_model_that_is_not_the_session_s_is_refused_before_data(party: Any) -> None:
    party.prepare()
    party.begin("train")
    party.advertise()
    for kit in party.kits:
        party.take_shares(
            bytes.fromhex(kit.site.id), party.answer(kit, party.share_frame(kit, model_hash="1" * 64))["shares"]
        )
    party.sum.close_shares()
    kit = party.kits[0]
    assert party.refusal(kit, party.mask_frame(kit)) == RefusalCode.MODEL_INVALID


def test_sets_that_are_too_small_or_without_us_are_refused_before_data(make_party: Any) -> None:
    party = make_party(count=4)
    party.reach("mask")
    kit, rest = party.kits[0], party.ids[1:]
    assert party.refusal(kit, party.mask_frame(kit, rest)) == RefusalCode.MALFORMED
    assert party.refusal(kit, party.mask_frame(kit, party.ids[:2])) == RefusalCode.COHORT
    party.mask()
    assert party.refusal(kit, party.unmask_frame(kit, rest)) == RefusalCode.MALFORMED
    assert party.refusal(kit, party.unmask_frame(kit, party.ids[:2])) == RefusalCode.COHORT


def test_stages_of_a_sum_belong_to_runs_with_sums(kit: Any, party: Any) -> None:
    plan = kit.centre.plan()  # sealed
    kit.answer(kit.centre.prepare(kit.site, plan))
    assert kit.answer(kit.centre.ask(kit.site, "unmask", plan, purpose="train")).code == RefusalCode.PROTECTION
    blobs = {"next": party.manifest("train", plan_hash=plan.hash).encode()}
    body = {"next": {"round": 1, "attempt": 1}}
    asked = kit.centre.ask(kit.site, "advertise", plan, blobs, purpose="train", body=body)
    assert kit.answer(asked).code == RefusalCode.PROTECTION
    assert kit.answer(kit.centre.ask(kit.site, "unmask", plan)).code == RefusalCode.MALFORMED
    assert kit.answer(kit.centre.ask(kit.site, "train", plan, purpose="train")).code == RefusalCode.MALFORMED
    # Values of a run with sums leave in sums alone.
    party.prepare()
    one = party.kits[0]
    assert party.refusal(one, party.centre.train(one.site, party.plan)) == RefusalCode.REPLAYED
    assert party.refusal(one, party.centre.ask(one.site, "statistics", party.plan)) == RefusalCode.REPLAYED


def test_the_operator_says_how_small_a_cohort_may_be(party: Any) -> None:
    kit = party.kits[0]
    pair = party.centre.plan(protection=ProtectionPlan(terms=Terms(min_cohort=3, min_survivors=2)))
    asked = party.centre.prepare(kit.site, pair)
    assert kit.answer(asked).code == RefusalCode.COHORT
    assert kit.answer(asked, kit.handler(cohort_min=2)).outcome == "ok"
    assert kit.answer(party.centre.prepare(kit.site, party.plan, attempt=2), kit.handler(cohort_min=4)).code == (
        RefusalCode.COHORT
    )
    sealed = party.centre.prepare(kit.site, party.centre.plan(), attempt=3)
    assert kit.answer(sealed, kit.handler(minimum_protection="secagg")).code == RefusalCode.PROTECTION


def test_what_follows_is_looked_at_before_anything_is_opened(party: Any) -> None:
    party.prepare()
    party.train()
    kit = party.kits[0]
    broken = party.manifest("train", plan_hash="0" * 64)
    assert party.refusal(kit, party.unmask_frame(kit, following=(broken, 2, 1))) == RefusalCode.PLAN_INVALID
    good = party.manifest("train")
    for number, attempt in ((0, 1), (4, 1), (1, 1)):
        following = (good, number, attempt)
        wanted = RefusalCode.REPLAYED if number == 1 else RefusalCode.WRONG_RUN
        assert party.refusal(kit, party.unmask_frame(kit, following=following)) == wanted
    for body in ({}, {"next": 1}, {"next": {"round": True, "attempt": 1}}, {"next": {"round": 2, "attempt": 0}}):
        asked = party.unmask_frame(kit, following=(good, 2, 1), body=body)
        assert party.refusal(kit, asked) == RefusalCode.MALFORMED
    assert (
        party.refusal(kit, party.unmask_frame(kit, body={"next": {"round": 2, "attempt": 1}})) == RefusalCode.MALFORMED
    )
    body = {"next": {"round": 2, "attempt": 1}}
    for kind in ("install", "finish"):
        asked = party.stage(kit, kind, {"next": good.encode()}, purpose="", body=body)
        assert party.refusal(kit, asked) == RefusalCode.MALFORMED
    party.unmask(following=(good, 2, 1))
