"""Secure sums through real handlers: exact, each stage answered once, opened once, and the same after a crash."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.plan import PrivacyPlan
from fedsite.protocol.secagg import graph
from fedsite.protocol.secagg.graph import Size
from tests.secure_sites import files


def test_a_run_of_sums_is_exact_and_takes_three_trips_a_round(party: Any) -> None:
    party.prepare()
    party.advertise()
    party.share()
    party.mask()
    adverts = party.unmask(following=(party.manifest("train"), 1, 1))
    assert party.total()["statistics/count"] == pytest.approx(21.0, abs=1e-6)
    for number in (1, 2, 3):
        party.begin("train", number)
        for site, advert in adverts.items():
            party.sum.add_advert(site, advert, party.identities)
        party.sum.close_adverts()
        party.share()
        party.mask()
        following = (party.manifest("train"), number + 1, 1) if number < 3 else None
        adverts = party.unmask(following)
        expected = party.expected()
        total = party.total()
        assert total["delta/weight"] == pytest.approx(np.full(3, 0.25 + 0.5 + 0.75), abs=1e-6)
        assert (party.sum.total == expected).all()
        assert total["evaluation/count"] == [0.0]  # a private run without evaluation noise
    for kit in party.kits:
        assert [name for name, _ in kit.worker.calls] == ["cost", "prepare", "statistics", "train", "train", "train"]
        assert sum(spend.steps for spend in kit.spent()) == 1 + 9


def test_without_privacy_updates_are_weighted_by_windows(make_party: Any) -> None:
    party = make_party(privacy=PrivacyPlan())
    for kit in party.kits:
        kit.settings = kit.handler_settings(require_privacy=False)
    party.prepare()
    party.train()
    party.unmask()
    total = party.total()
    windows = sum(kit.worker.windows for kit in party.kits)
    assert total["weight"][0] * party.plan.protection.examples_max == pytest.approx(windows)
    mean = sum(kit.worker.delta * kit.worker.windows for kit in party.kits) / windows
    assert total["delta/weight"] / total["weight"] == pytest.approx(np.full(3, mean), abs=1e-4)
    assert total["loss"] / total["weight"] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("stage", ["share", "mask"])
def test_a_site_lost_in_a_stage_is_not_in_the_sum(make_party: Any, stage: str) -> None:
    party = make_party(count=4)
    party.prepare()
    party.begin("train")
    party.advertise()
    party.share(party.ids[1:] if stage == "share" else None)
    party.mask(party.ids[1:])
    party.unmask()
    party.total()
    assert (party.sum.total == party.expected(party.ids[1:])).all()


def test_where_the_graph_is_sparse_survivors_are_confirmed(make_party: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "size_for", lambda *given, **named: Size(neighbours=3, threshold=3, confirm=True))
    party = make_party(count=4)
    party.prepare()
    party.train()
    kit = party.kits[0]
    assert party.refusal(kit, party.unmask_frame(kit)) == RefusalCode.MALFORMED  # no confirmations
    party.confirmations = dict.fromkeys(party.ids, bytes(64))
    assert party.refusal(kit, party.unmask_frame(kit)) == RefusalCode.REPLAYED  # it confirms first
    assert party.refusal(kit, party.confirm_frame(kit, party.ids[:2])) == RefusalCode.COHORT
    party.confirm()
    assert party.refusal(kit, party.confirm_frame(kit, party.ids[:3])) == RefusalCode.REPLAYED
    signed = party.confirmations
    party.confirmations = dict(list(signed.items())[:2])
    assert party.refusal(kit, party.unmask_frame(kit)) == RefusalCode.COHORT
    party.confirmations = {**signed, party.ids[1]: bytes(64)}
    assert party.refusal(kit, party.unmask_frame(kit)) == RefusalCode.SIGNATURE
    party.confirmations = signed
    assert party.refusal(kit, party.unmask_frame(kit, party.ids[:3])) == RefusalCode.MALFORMED
    party.unmask()
    party.total()
    assert (party.sum.total == party.expected()).all()


def test_nothing_is_opened_twice(party: Any) -> None:
    party.prepare()
    party.train()
    kit = party.kits[0]
    other = party.unmask_frame(kit, run_key="")
    party.unmask()
    assert party.refusal(kit, other) == RefusalCode.REPLAYED
    for attempt in (2, 1001):
        party.begin("train", 1, attempt)
        assert party.refusal(kit, party.advertise_frame(kit)) == RefusalCode.REPLAYED
    # Going back to an earlier round, or to one that was opened after an unopened one, is no way round.
    party.train(2, 1001)
    party.unmask()
    party.begin("train", 1, 1001)
    assert party.refusal(kit, party.advertise_frame(kit)) == RefusalCode.REPLAYED
    party.begin("train", 3, 1001)
    party.advertise()


def test_an_attempt_is_left_behind_when_the_next_begins(party: Any) -> None:
    party.prepare()
    party.train()
    kit = party.kits[0]
    late = party.unmask_frame(kit)
    party.begin("train", 1, 2)
    party.advertise()
    assert party.refusal(kit, late) == RefusalCode.REPLAYED
    assert not [name for name in files(kit) if name.endswith("000001-train-1.sum")]
    party.begin("train", 1, 1)
    assert party.refusal(kit, party.advertise_frame(kit, run_key="")) == RefusalCode.REPLAYED


def test_keys_are_made_once_and_told_again(party: Any) -> None:
    """An advert that rode on a lost reply is asked for again by itself."""
    party.prepare()
    party.begin("train")
    kit = party.kits[0]
    body = {"next": {"round": 1, "attempt": 1}}
    blobs = {"next": party.sum.manifest.encode()}
    riding = party.centre.ask(kit.site, "statistics", party.plan, {**blobs, "secagg": b""}, body=body)
    assert party.refusal(kit, riding) == RefusalCode.REPLAYED  # the statistics are refused, and no keys made
    prepared = party.centre.ask(
        kit.site, "prepare", party.plan, {**blobs, "plan": party.plan.encode()}, body=body, attempt=2
    )
    first = party.answer(kit, prepared)["advert"]
    assert party.answer(kit, party.advertise_frame(kit))["advert"] == first
    other = party.manifest("train", fields=party.sum.manifest.fields[:1])
    asked = party.stage(kit, "prepare", {"plan": party.plan.encode(), "next": other.encode()}, purpose="", body=body)
    assert party.refusal(kit, asked) == RefusalCode.REPLAYED
