"""What is on a site's disk during a sum: enough to answer the same after a crash, nothing that opens a secret."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from fedsite.client.store import Outbox
from fedsite.client.sums.store import SumStore
from fedsite.protocol.errors import RefusalCode, StorageError
from fedsite.protocol.messages import Frame, read_reply
from tests.secure_sites import files

FRAMES: dict[str, Callable[[Any, Any], Frame]] = {
    "advertise": lambda party, kit: party.advertise_frame(kit),
    "share": lambda party, kit: party.share_frame(kit),
    "mask": lambda party, kit: party.mask_frame(kit),
    "unmask": lambda party, kit: party.unmask_frame(kit, following=(party.manifest("train"), 2, 1)),
}


def die(kit: Any, asked: Frame, kind: type, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site ends where it would call this method."""

    def killed(*_given: Any) -> None:
        raise StorageError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(kind, method, killed)
        assert kit.answer(asked).outcome == "failed"


@pytest.mark.parametrize("stage", FRAMES)
def test_a_crash_after_the_state_was_stored_changes_no_byte_of_the_answer(
    party: Any, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    party.reach(stage)
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
    party.train()
    kit = party.kits[0]
    asked = party.unmask_frame(kit)

    die(kit, asked, SumStore, "save", monkeypatch)
    assert party.refusal(kit, party.unmask_frame(kit, run_key="")) == RefusalCode.REPLAYED
    assert kit.answer(asked).outcome == "ok"


def test_a_crash_between_charge_and_mask_pays_once(party: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    party.reach("mask")
    kit = party.kits[0]
    asked = party.mask_frame(kit)

    die(kit, asked, SumStore, "save", monkeypatch)
    spent = kit.spent()
    assert spent
    assert kit.answer(asked).outcome == "ok"
    assert kit.spent() == spent
    assert [name for name, _ in kit.worker.calls].count("train") == 1


def test_masks_are_never_used_for_another_vector(party: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state says masked, no reply was kept, and the released values are gone: nothing may be made anew."""
    party.reach("mask")
    kit = party.kits[0]
    asked = party.mask_frame(kit)

    die(kit, asked, Outbox, "keep_reply", monkeypatch)
    (values,) = (kit.site.directory / "outbox").rglob("*.values")
    values.unlink()
    assert party.refusal(kit, asked) == RefusalCode.REPLAYED


def test_a_retry_masks_the_same_vector_anew_and_is_charged_once(party: Any) -> None:
    party.prepare()
    party.train()
    first = {kit.site.id: kit.worker.vectors[-1] for kit in party.kits}
    masked = party.sum.total.copy()
    party.train(attempt=2)
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
    party.train()
    party.begin("train", attempt=2)
    fields = [field for field in party.sum.manifest.fields if field.name.startswith("delta/")]
    party.sum = party.new_sum(party.manifest("train", fields=tuple(fields)))
    party.advertise()
    party.share()
    party.mask()
    assert [sum(spend.steps for spend in kit.spent()) for kit in party.kits] == [6, 6, 6]


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
    party.reach("mask")
    kit = party.kits[0]
    asked = party.mask_frame(kit)
    (path,) = (kit.site.directory / "outbox").rglob("*.sum")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    reply = kit.answer(asked)
    assert (reply.outcome, reply.code) == ("failed", RefusalCode.STORAGE)
    party.train(attempt=2)
    party.unmask()
    party.total()
    assert (party.sum.total == party.expected()).all()


def test_the_end_of_a_run_takes_its_secrets_along(party: Any) -> None:
    party.prepare()
    party.train()
    kit = party.kits[0]
    late = party.unmask_frame(kit)
    assert kit.answer(party.centre.ask(kit.site, "finish", party.plan, round=3)).outcome == "ok"
    assert not [name for name in files(kit) if name.endswith((".sum", ".values"))]
    assert party.refusal(kit, late) == RefusalCode.REPLAYED
