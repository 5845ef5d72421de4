"""What a site holds the sums of a run to: the one plan it accepted, and as many honest sites as its operator wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.plan import PrivacyPlan, ProtectionPlan, SitePrivacyPlan
from fedsite.protocol.secagg.manifest import Terms

OTHER_RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAW"


def test_the_operator_says_how_many_may_collude(party: Any) -> None:
    kit = party.kits[0]
    asked = party.centre.prepare(kit.site, party.plan)
    assert kit.answer(asked, kit.handler(colluding_min=1)).code == RefusalCode.COHORT
    held = party.centre.plan(protection=ProtectionPlan(terms=Terms(min_cohort=4, min_survivors=4, colluding=1)))
    asked = party.centre.prepare(kit.site, held, attempt=2)
    assert kit.answer(asked, kit.handler(colluding_min=2)).code == RefusalCode.COHORT
    assert kit.answer(asked, kit.handler(colluding_min=1)).outcome == "ok"
    sealed = party.centre.prepare(kit.site, party.centre.plan(run_id=OTHER_RUN))
    assert kit.answer(sealed, kit.handler(colluding_min=1)).outcome == "ok"  # no sums, no cohort


def test_a_run_has_one_plan(make_party: Callable[..., Any]) -> None:
    """Keys made for a plan without noise must not carry values that are charged as noised."""
    bare = {"privacy": PrivacyPlan(), "protection": ProtectionPlan(sites=3)}
    party = make_party(**bare)
    kit, handlers = party.kits[0], [one.handler(require_privacy=False) for one in party.kits]
    for one, handler in zip(party.kits, handlers, strict=True):
        assert one.answer(party.centre.prepare(one.site, party.plan), handler).outcome == "ok"
    party.begin("train")
    for one, handler in zip(party.kits, handlers, strict=True):
        advert = handler.handle(party.advertise_frame(one)).blobs["advert"]
        party.sum.add_advert(bytes.fromhex(one.site.id), advert, party.identities)
    party.sum.close_adverts()
    for one, handler in zip(party.kits, handlers, strict=True):
        shares = handler.handle(party.share_frame(one)).blobs["shares"]
        party.take_shares(bytes.fromhex(one.site.id), shares)
    party.sum.close_shares()
    site = SitePrivacyPlan(epsilon=8.0, noise_multiplier=5.0)
    noised = party.centre.plan(privacy=PrivacyPlan(mode="site", site=site), protection=party.plan.protection)
    asked = party.centre.prepare(kit.site, noised, attempt=2)
    assert party.refusal(kit, asked) == RefusalCode.WRONG_RUN
    assert kit.answer(party.centre.prepare(kit.site, party.plan, attempt=3), handlers[0]).outcome == "ok"
    # Even if another plan had been accepted, keys of the first would not serve it.
    kit.outbox.accept(noised.run_id, noised.encode())
    party.plan = noised
    assert party.refusal(kit, party.mask_frame(kit)) == RefusalCode.PLAN_INVALID
