"""Secure sums through real handlers: exact, each stage answered once, opened once, and the same after a crash."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from fedsite.client.secure_store import SumStore
from fedsite.client.store import Outbox
from fedsite.protocol.errors import RefusalCode, StorageError
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, read_reply
from fedsite.protocol.plan import PrivacyPlan, ProtectionPlan
from fedsite.protocol.secagg import graph, wire
from fedsite.protocol.secagg.graph import Size
from fedsite.protocol.secagg.manifest import Terms


def files(kit: Any) -> dict[str, bytes]:
    """Everything the site keeps but its budget."""
    folder = kit.site.directory / "outbox"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def code(party: Any, kit: Any, asked: Frame) -> RefusalCode | None:
    """What a site says to an instruction that it must refuse, which changes nothing that it keeps."""
    before, calls, spent = files(kit), len(kit.worker.calls), kit.spent()
    reply = kit.handler().handle(asked)
    header = party.centre.open(kit.site, reply, asked)
    assert header.outcome == "refused"
    assert not reply.blobs
    assert (files(kit), len(kit.worker.calls), kit.spent()) == (before, calls, spent)
    return header.code


def train(party: Any, number: int = 1, attempt: int = 1) -> None:
    party.begin("train", number, attempt)
    party.advertise()
    party.share()
    party.mask()


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
    train(party)
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
    train(party)
    kit = party.kits[0]
    assert code(party, kit, party.unmask_frame(kit)) == RefusalCode.MALFORMED  # no confirmations
    party.confirmations = dict.fromkeys(party.ids, bytes(64))
    assert code(party, kit, party.unmask_frame(kit)) == RefusalCode.REPLAYED  # it confirms first
    assert code(party, kit, party.confirm_frame(kit, party.ids[:2])) == RefusalCode.COHORT
    party.confirm()
    assert code(party, kit, party.confirm_frame(kit, party.ids[:3])) == RefusalCode.REPLAYED
    signed = party.confirmations
    party.confirmations = dict(list(signed.items())[:2])
    assert code(party, kit, party.unmask_frame(kit)) == RefusalCode.COHORT
    party.confirmations = {**signed, party.ids[1]: bytes(64)}
    assert code(party, kit, party.unmask_frame(kit)) == RefusalCode.SIGNATURE
    party.confirmations = signed
    assert code(party, kit, party.unmask_frame(kit, party.ids[:3])) == RefusalCode.MALFORMED
    party.unmask()
    party.total()
    assert (party.sum.total == party.expected()).all()


FRAMES: dict[str, Callable[[Any, Any], Frame]] = {
    "advertise": lambda party, kit: party.advertise_frame(kit),
    "share": lambda party, kit: party.share_frame(kit),
    "mask": lambda party, kit: party.mask_frame(kit),
    "unmask": lambda party, kit: party.unmask_frame(kit, following=(party.manifest("train"), 2, 1)),
}


def reach(party: Any, stage: str) -> None:
    """Everything up to the stage has happened, at all sites."""
    party.prepare()
    party.begin("train")
    steps = {"advertise": party.advertise, "share": party.share, "mask": party.mask}
    for name, step in steps.items():
        if name == stage:
            return
        step()


@pytest.mark.parametrize("stage", FRAMES)
def test_a_crash_after_the_state_was_stored_changes_no_byte_of_the_answer(
    party: Any, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(party, stage)
    kit, sent = party.kits[0], []
    asked = FRAMES[stage](party, kit)

    def killed(_outbox: Outbox, _header: Any, frame: Frame) -> None:
        sent.append(frame)
        raise StorageError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "keep_reply", killed)
        assert kit.answer(asked).outcome == "failed"
    spent, calls = kit.spent(), len(kit.worker.calls)
    reply = kit.handler().handle(asked)
    assert reply == sent[0]
    assert read_reply(reply.header).outcome == "ok"
    assert kit.handler().handle(asked) == reply  # and from what was kept
    assert (kit.spent(), len(kit.worker.calls)) == (spent, calls)


def test_a_crash_between_the_mark_and_the_opening_opens_the_same_once(
    party: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    party.prepare()
    train(party)
    kit = party.kits[0]
    asked = party.unmask_frame(kit)

    def killed(*_given: Any) -> None:
        raise StorageError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(SumStore, "save", killed)
        assert kit.answer(asked).outcome == "failed"
    assert code(party, kit, party.unmask_frame(kit, run_key="")) == RefusalCode.REPLAYED
    assert kit.answer(asked).outcome == "ok"


def test_a_crash_between_charge_and_mask_pays_once(party: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reach(party, "mask")
    kit = party.kits[0]
    asked = party.mask_frame(kit)

    def killed(*_given: Any) -> None:
        raise StorageError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(SumStore, "save", killed)
        assert kit.answer(asked).outcome == "failed"
    spent = kit.spent()
    assert spent
    assert kit.answer(asked).outcome == "ok"
    assert kit.spent() == spent
    assert [name for name, _ in kit.worker.calls].count("train") == 1


def test_masks_are_never_used_for_another_vector(party: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state says masked, no reply was kept, and the released values are gone: nothing may be made anew."""
    reach(party, "mask")
    kit = party.kits[0]
    asked = party.mask_frame(kit)

    def killed(*_given: Any) -> None:
        raise StorageError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "keep_reply", killed)
        kit.answer(asked)
    (values,) = (kit.site.directory / "outbox").rglob("*.values")
    values.unlink()
    assert code(party, kit, asked) == RefusalCode.REPLAYED


def test_a_retry_masks_the_same_vector_anew_and_is_charged_once(party: Any) -> None:
    party.prepare()
    train(party)
    first = {kit.site.id: kit.worker.vectors[-1] for kit in party.kits}
    masked = party.sum.total.copy()
    train(party, attempt=2)
    assert not (party.sum.total == masked).all()
    assert {kit.site.id: kit.worker.vectors[-1] for kit in party.kits} == first
    party.unmask()
    party.total()
    assert (party.sum.total == party.expected()).all()
    for kit in party.kits:
        assert [name for name, _ in kit.worker.calls].count("train") == 1
        assert sum(spend.steps for spend in kit.spent()) == 3


def test_a_retry_on_another_grid_is_another_release(make_party: Any) -> None:
    """The vector of other terms is another vector: it may not pass for the one that was paid for."""
    party = make_party()
    party.prepare()
    train(party)
    party.begin("train", attempt=2)
    fields = [field for field in party.sum.manifest.fields if field.name.startswith("delta/")]
    party.sum = party.new_sum(party.manifest("train", fields=tuple(fields)))
    party.advertise()
    party.share()
    party.mask()
    assert [sum(spend.steps for spend in kit.spent()) for kit in party.kits] == [6, 6, 6]


def test_nothing_is_opened_twice(party: Any) -> None:
    party.prepare()
    train(party)
    kit = party.kits[0]
    other = party.unmask_frame(kit, run_key="")
    party.unmask()
    assert code(party, kit, other) == RefusalCode.REPLAYED
    for attempt in (2, 1001):
        party.begin("train", 1, attempt)
        assert code(party, kit, party.advertise_frame(kit)) == RefusalCode.REPLAYED
    # Going back to an earlier round, or to one that was opened after an unopened one, is no way round.
    train(party, 2, 1001)
    party.unmask()
    party.begin("train", 1, 1001)
    assert code(party, kit, party.advertise_frame(kit)) == RefusalCode.REPLAYED
    party.begin("train", 3, 1001)
    party.advertise()


def test_an_attempt_is_left_behind_when_the_next_begins(party: Any) -> None:
    party.prepare()
    train(party)
    kit = party.kits[0]
    late = party.unmask_frame(kit)
    party.begin("train", 1, 2)
    party.advertise()
    assert code(party, kit, late) == RefusalCode.REPLAYED
    assert not [name for name in files(kit) if name.endswith("000001-train-1.sum")]
    party.begin("train", 1, 1)
    assert code(party, kit, party.advertise_frame(kit, run_key="")) == RefusalCode.REPLAYED


def test_keys_are_made_once_and_told_again(party: Any) -> None:
    """An advert that rode on a lost reply is asked for again by itself."""
    party.prepare()
    party.begin("train")
    kit = party.kits[0]
    body = {"next": {"round": 1, "attempt": 1}}
    blobs = {"next": party.sum.manifest.encode()}
    riding = party.centre.ask(kit.site, "statistics", party.plan, {**blobs, "secagg": b""}, body=body)
    assert code(party, kit, riding) == RefusalCode.REPLAYED  # the statistics are refused, and no keys made
    prepared = party.centre.ask(
        kit.site, "prepare", party.plan, {**blobs, "plan": party.plan.encode()}, body=body, attempt=2
    )
    first = party.answer(kit, prepared)["advert"]
    assert party.answer(kit, party.advertise_frame(kit))["advert"] == first
    other = party.manifest("train", fields=party.sum.manifest.fields[:1])
    asked = party.stage(kit, "prepare", {"plan": party.plan.encode(), "next": other.encode()}, purpose="", body=body)
    assert code(party, kit, asked) == RefusalCode.REPLAYED


def test_what_follows_is_looked_at_before_anything_is_opened(party: Any) -> None:
    party.prepare()
    train(party)
    kit = party.kits[0]
    broken = party.manifest("train", plan_hash="0" * 64)
    assert code(party, kit, party.unmask_frame(kit, following=(broken, 2, 1))) == RefusalCode.PLAN_INVALID
    good = party.manifest("train")
    for number, attempt in ((0, 1), (4, 1), (1, 1)):
        following = (good, number, attempt)
        wanted = RefusalCode.REPLAYED if number == 1 else RefusalCode.WRONG_RUN
        assert code(party, kit, party.unmask_frame(kit, following=following)) == wanted
    for body in ({}, {"next": 1}, {"next": {"round": True, "attempt": 1}}, {"next": {"round": 2, "attempt": 0}}):
        asked = party.unmask_frame(kit, following=(good, 2, 1), body=body)
        assert code(party, kit, asked) == RefusalCode.MALFORMED
    assert code(party, kit, party.unmask_frame(kit, body={"next": {"round": 2, "attempt": 1}})) == RefusalCode.MALFORMED
    party.unmask(following=(good, 2, 1))


def test_identities_that_the_federation_did_not_certify_are_refused(party: Any) -> None:
    reach(party, "share")
    kit = party.kits[0]
    blobs = {"roster": party.sum.roster.raw, "identities": party.certificates()}
    hashes = {"model_hash": party.model_hash}
    own = party.certificates()[:104]

    def asked(identities: bytes) -> Frame:
        return party.stage(kit, "share", {**blobs, "identities": identities}, **hashes)

    party.centre.key, ours = SigningKey.generate(), party.centre.key
    forged = party.certificates()
    party.centre.key = ours
    assert code(party, kit, asked(forged)) == RefusalCode.SIGNATURE
    assert code(party, kit, asked(own + forged[104:])) == RefusalCode.SIGNATURE
    assert code(party, kit, asked(blobs["identities"][:208] + own)) == RefusalCode.SIGNATURE  # another's identity
    assert code(party, kit, asked(blobs["identities"][:208])) == RefusalCode.MALFORMED
    party.lifetime = timedelta(seconds=-1)
    assert code(party, kit, asked(party.certificates())) == RefusalCode.SIGNATURE
    party.lifetime = timedelta(days=1)
    assert "shares" in party.answer(kit, asked(party.certificates()))


def test_a_cohort_with_another_s_keys_for_a_site_is_refused(party: Any) -> None:
    reach(party, "share")
    kit, last = party.kits[0], party.kits[2]
    raw = party.sum.roster.raw
    made_up = SigningKey.generate()
    expires = kit.now + party.lifetime
    from fedsite.protocol import certified

    identity = certified.issue(made_up.public, expires, party.plan.federation, party.centre.key)
    identities = party.certificates()[:208] + identity
    blobs = {"roster": raw, "identities": identities}
    asked = party.stage(kit, "share", blobs, model_hash=party.model_hash)
    assert code(party, kit, asked) == RefusalCode.SIGNATURE
    swapped = raw[:352] + raw[352:400] + raw[224:256] + raw[432:]  # another share key under the last site's signature
    blobs = {"roster": raw[:384] + bytes(32) + raw[416:], "identities": party.certificates()}
    assert swapped != raw
    asked = party.stage(last, "share", blobs, model_hash=party.model_hash)
    assert code(party, last, asked) == RefusalCode.MALFORMED  # of ours
    asked = party.stage(kit, "share", blobs, model_hash=party.model_hash)
    assert code(party, kit, asked) == RefusalCode.SIGNATURE  # of a neighbour


def test_a_model_that_is_not_the_session_s_is_refused_before_data(party: Any) -> None:
    party.prepare()
    for purpose in ("train", "evaluate", "calibrate"):
        party.plan = party.plan
        party.begin(purpose)
    party.begin("train")
    party.advertise()
    for kit in party.kits:
        party.take_shares(
            bytes.fromhex(kit.site.id), party.answer(kit, party.share_frame(kit, model_hash="1" * 64))["shares"]
        )
    party.sum.close_shares()
    kit = party.kits[0]
    assert code(party, kit, party.mask_frame(kit)) == RefusalCode.MODEL_INVALID


def test_sets_that_are_too_small_or_without_us_are_refused_before_data(make_party: Any) -> None:
    party = make_party(count=4)
    reach(party, "mask")
    kit, rest = party.kits[0], party.ids[1:]
    assert code(party, kit, party.mask_frame(kit, rest)) == RefusalCode.MALFORMED
    assert code(party, kit, party.mask_frame(kit, party.ids[:2])) == RefusalCode.COHORT
    party.mask()
    assert code(party, kit, party.unmask_frame(kit, rest)) == RefusalCode.MALFORMED
    assert code(party, kit, party.unmask_frame(kit, party.ids[:2])) == RefusalCode.COHORT


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
    assert code(party, one, party.centre.train(one.site, party.plan)) == RefusalCode.REPLAYED
    assert code(party, one, party.centre.ask(one.site, "statistics", party.plan)) == RefusalCode.REPLAYED


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


def test_the_end_of_a_run_takes_its_secrets_along(party: Any) -> None:
    party.prepare()
    train(party)
    kit = party.kits[0]
    late = party.unmask_frame(kit)
    assert kit.answer(party.centre.ask(kit.site, "finish", party.plan, round=3)).outcome == "ok"
    assert not [name for name in files(kit) if name.endswith((".sum", ".values"))]
    assert code(party, kit, late) == RefusalCode.REPLAYED


def test_secrets_are_neither_on_disk_nor_in_logs(party: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    party.prepare()
    kit = party.kits[0]
    store = SumStore(kit.outbox, kit.site.key.derive("secagg"))
    party.begin("train")
    secrets: set[bytes] = set()
    for step in (party.advertise, party.share, party.mask, party.unmask):
        step()
        (place,) = store.places(party.plan.run_id, "train")
        kept = store.load(place)
        assert kept is not None
        state = kept.state
        found = {state.mask_private, state.share_private, state.secret} - {b""}
        assert len(found) == (0 if step == party.unmask else 3)
        secrets |= found
        held = secrets | ({state.own_share} - {b""})  # which is opened at last
        kit.handler().handle(party.advertise_frame(kit, run_key=""))  # and what is refused
        told = (caplog.text + repr(kept)).encode() + b"".join(files(kit).values())
        for secret in held:
            for text in (secret, repr(secret).encode(), secret.hex().encode(), base64.b64encode(secret)[:40]):
                assert text not in told
    folder = kit.site.directory / "outbox"
    assert {path.stat().st_mode & 0o077 for path in [folder, *folder.rglob("*")]} == {0}


def test_a_damaged_file_costs_the_attempt_and_not_the_next_one(party: Any) -> None:
    reach(party, "mask")
    kit = party.kits[0]
    asked = party.mask_frame(kit)
    (path,) = (kit.site.directory / "outbox").rglob("*.sum")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    reply = kit.answer(asked)
    assert (reply.outcome, reply.code) == ("failed", RefusalCode.STORAGE)
    train(party, attempt=2)
    party.unmask()
    party.total()
    assert (party.sum.total == party.expected()).all()
    assert wire.pack_set(party.sum.u3, party.sum.roster.sites)
