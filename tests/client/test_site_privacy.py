"""Privacy per site at a site: two units reserved and charged apart, manifests whose noise is the plan's, real sums."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedsite.client.consent import policy
from fedsite.client.ledger.budget import Budget
from fedsite.client.ledger.budget_entries import Entry
from fedsite.client.settings import PolicySettings
from fedsite.client.store import Outbox
from fedsite.client.sums import terms
from fedsite.client.sums.store import SumStore
from fedsite.client.work.operations import Operations
from fedsite.models import sum_noise
from fedsite.protocol.errors import DocumentError, PolicyError, RefusalCode, StorageError
from fedsite.protocol.plan import ModelPlan, PrivacyPlan, ProtectionPlan, SitePrivacyPlan
from fedsite.protocol.secagg import wire
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest, Terms

SITE = SitePrivacyPlan(epsilon=8.0, noise_multiplier=5.0)
BOTH = {
    "privacy": PrivacyPlan(mode="both", epsilon=8.0, noise_multiplier=2.0, site=SITE),
    "protection": ProtectionPlan(sites=3),
    "model": ModelPlan(name="mlp", options={"hidden": [4]}, parameters=3),
}
SUMS = {**BOTH, "privacy": PrivacyPlan(mode="site", site=SITE, statistics_noise=10.0, evaluation_noise=20.0)}
DELTA = Field(name="delta/weight", shape=(3,), bound=4.0)


def entries(kit: Any) -> dict[str, Entry]:
    budget = Budget(kit.budget_path)
    try:
        return {entry.unit: entry for entry in budget.entries()}
    finally:
        budget.close()


class Priced:
    """A worker whose prices are the real ones."""

    def __init__(self, fake: Any) -> None:
        self.fake = fake
        self.calls = fake.calls

    def call(self, operation: str, arguments: Any, blobs: Any, *, timeout_s: float) -> Any:
        if operation == "cost":
            return Operations().cost(arguments, blobs)
        return self.fake.call(operation, arguments, blobs, timeout_s=timeout_s)


@pytest.fixture
def both(make_party: Callable[..., Any]) -> Any:
    return _priced(make_party(**BOTH))


def _priced(party: Any) -> Any:
    for kit in party.kits:
        kit.worker = Priced(kit.worker)
    return party


def _noised(party: Any, *fields: Field, purpose: str = "train") -> Manifest:
    bare, noise = sum_noise.noised(party.plan, fields or (DELTA,))
    return party.manifest(purpose, fields=bare, noise=noise, examples_max=0)


def test_a_run_with_two_claims_pays_twice_and_apart(both: Any) -> None:
    both.prepare()
    kit = both.kits[0]
    reserved = entries(kit)
    assert set(reserved) == {both.plan.privacy.unit, "site"}
    both.begin("train")
    both.sum = both.new_sum(_noised(both))
    for stage in ("advertise", "share", "mask"):
        getattr(both, stage)()
    spent = entries(kit)
    (own,), (sums,) = spent[both.plan.privacy.unit].spent, spent["site"].spent
    assert (own.noise_multiplier, own.steps) == (2.0, 3)
    assert (sums.steps, sums.sampling_rate) == (1, 1.0)
    assert 4.9 < sums.noise_multiplier < 5.0
    assert sums.steps < sum(spend.steps for spend in spent["site"].reserved) == 3
    assert spent["site"].epsilon != spent[both.plan.privacy.unit].epsilon


def test_a_sum_of_real_sites_holds_the_noise(make_party: Callable[..., Any]) -> None:
    party = _priced(make_party(**SUMS))
    party.prepare()
    party.begin("train")
    party.sum = party.new_sum(_noised(party))
    for stage in ("advertise", "share", "mask", "unmask"):
        getattr(party, stage)()
    total = party.total()["delta/weight"]
    # 0.25, 0.5 and 0.75 in each of three coordinates, the last clipped to norm 1; noise of σ 5 in their sum.
    plain = 0.25 + 0.5 + 1 / np.sqrt(3)
    assert 0.01 < np.abs(total - plain).max() < 5 * 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"multiplier": 4.9}, "noise is"),
        ({"clip": 2.0}, "noise is"),
        ({"mechanism": "discrete-gaussian"}, "noise is"),
    ],
)
def test_other_noise_than_the_plans_is_refused(both: Any, change: dict[str, Any], words: str) -> None:
    given = _noised(both)
    terms.check(given, both.plan, limit=1 << 20)
    part = replace(given.noise[0], **change)
    other = replace(given, noise=(part,), fields=(replace(given.fields[0], bound=part.clip),))
    with pytest.raises(DocumentError, match=words) as caught:
        terms.check(other, both.plan, limit=1 << 20)
    assert caught.value.refusal == RefusalCode.PLAN_INVALID


def test_no_noise_where_the_plan_has_some_is_refused(both: Any) -> None:
    bare = both.manifest("train", fields=(DELTA,), examples_max=0)
    with pytest.raises(DocumentError, match="noise is"):
        terms.check(bare, both.plan, limit=1 << 20)


def test_more_values_than_are_charged_are_refused(both: Any) -> None:
    """The plan has three parameters, and the price is for three."""
    with pytest.raises(DocumentError, match="as charged"):
        terms.check(_noised(both, replace(DELTA, shape=(4,))), both.plan, limit=1 << 20)


def test_each_instruction_has_its_price_for_each_unit(both: Any, make_party: Callable[..., Any]) -> None:
    site, centre, plan = both.kits[0].site, both.centre, both.plan
    train = centre.header(site, "train", plan, body={"evaluate": True})
    price = policy.price(plan, train)
    assert {unit: [spend.steps for spend in spends] for unit, spends in price.items()} == {
        plan.privacy.unit: [3], "site": [1],
    }  # fmt: skip
    sums = centre.plan(**SUMS)
    assert [
        len(policy.price(sums, centre.header(site, kind, sums))["site"]) for kind in ("statistics", "evaluate")
    ] == [1, 1]
    judged = centre.header(site, "train", sums, body={"evaluate": True})
    assert [round(spend.noise_multiplier) for spend in policy.price(sums, judged)["site"]] == [5, 20]
    assert policy.price(sums, centre.header(site, "share", sums)) == {}
    with pytest.raises(PolicyError, match="calibrate without noise"):
        policy.price(sums, centre.header(site, "calibrate", sums))


def test_a_site_takes_no_claim_on_trust(make_party: Callable[..., Any]) -> None:
    """ε 8 with noise for far more, and δ above the site's own."""
    weak = replace(BOTH["privacy"], site=replace(SITE, noise_multiplier=0.5))
    party = _priced(make_party(**{**BOTH, "privacy": weak}))
    kit = party.kits[0]
    reply = kit.answer(party.centre.prepare(kit.site, party.plan))
    assert reply.code == RefusalCode.PLAN_INVALID
    assert entries(kit) == {}
    loose = replace(BOTH["privacy"], site=replace(SITE, delta=1e-3))
    (reason,) = policy.reasons(party.centre.plan(**{**BOTH, "privacy": loose}), PolicySettings())
    assert "per site" in str(reason)


def test_the_cap_holds_for_each_unit(make_party: Callable[..., Any]) -> None:
    party = _priced(make_party(**BOTH))
    kit = party.kits[0]
    reply = kit.answer(party.centre.prepare(kit.site, party.plan), kit.handler(epsilon_max=1.0))
    assert reply.code == RefusalCode.BUDGET
    assert entries(kit) == {}


def test_fewer_honest_sites_are_another_plan(both: Any) -> None:
    """What noise is shared among stands in the terms, and these are the plan's."""
    helped = replace(both.plan.protection, terms=Terms(min_cohort=3, min_survivors=3, colluding=1))
    other = both.centre.plan(**{**BOTH, "protection": helped})
    given = _noised(both)
    with pytest.raises(DocumentError, match="plan is"):
        terms.check(given, other, limit=1 << 20)


def _attempt(party: Any, attempt: int, sites: Collection[bytes]) -> None:
    """A noised round over these sites, up to what the server would have to be told to open it."""
    party.begin("train", 1, attempt)
    party.sum = party.new_sum(_noised(party))
    party.advertise(sites)
    party.share()
    party.mask()


def test_a_part_of_the_noise_is_in_one_sum_only(make_party: Callable[..., Any]) -> None:
    """A sum that is opened without asking A leaves no mark at A: its next cohort must not get the same noise."""
    party = _priced(make_party(5, **{**SUMS, "protection": ProtectionPlan(sites=5)}))
    party.prepare()
    one, two, three, four, five = party.ids
    _attempt(party, 1, [one, two, three])
    for site in (two, three):
        blobs = party.answer(party.by_id[site], party.unmask_frame(party.by_id[site]))
        party.sum.add_opened(site, wire.unpack_opened(blobs["opened"], party.sum.u2))
    party.total()  # opened, and site one does not know
    kit = party.by_id[one]
    first, spent = kit.worker.fake.vectors[-1], sum(spend.steps for spend in kit.spent())
    _attempt(party, 2, [one, four, five])
    assert kit.worker.fake.vectors[-1] != first
    assert sum(spend.steps for spend in kit.spent()) == 2 * spent
    # And when the reservation is used up, there is no third.
    _attempt(party, 3, [one, four, five])
    party.begin("train", 1, 4)
    party.sum = party.new_sum(_noised(party))
    party.advertise([one, four, five])
    party.share()
    assert party.refusal(kit, party.mask_frame(kit)) == RefusalCode.BUDGET


def test_the_same_attempt_after_a_crash_sends_the_same_noise_and_pays_once(
    make_party: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    party = _priced(make_party(**SUMS))
    party.prepare()
    party.begin("train")
    party.sum = party.new_sum(_noised(party))
    party.advertise()
    party.share()
    kit = party.kits[0]
    asked = party.mask_frame(kit)

    def killed(*_given: Any) -> None:
        raise StorageError("killed")

    for target, name in ((Budget, "commit"), (SumStore, "save"), (Outbox, "keep_reply")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, killed)
            assert kit.answer(asked).outcome == "failed"
    assert kit.answer(asked).outcome == "ok"
    assert len(kit.worker.fake.vectors) == 1
    assert sum(spend.steps for spend in kit.spent()) == 1
