"""Files of instructions at a site: the one handler answers them, once; a file that is wrong is refused whole."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from fedsite.client.carried import exchange
from fedsite.client.carried.answers import CarriedAnswers
from fedsite.client.carried.exchange import Done
from fedsite.client.consent import approvals
from fedsite.client.consent.approvals import Approvals
from fedsite.protocol import instants, messages
from fedsite.protocol.errors import FedsiteError, RefusalCode, TrustError, UnreachableError
from fedsite.protocol.exchange_file import Address, Parcel, open_parcel, pack
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame
from tests.client.conftest import NOW, Kit


def _file(kit: Kit, *frames: Frame, sequence: int = 1, site_id: str = "", **more: Any) -> bytes:
    """A file of the centre's for the site."""
    address = Address(
        direction="instructions",
        federation=more.get("federation", kit.site.federation.id),
        site_id=site_id or kit.site.id,
        sequence=sequence,
        created=NOW,
        expires=NOW + timedelta(days=1),
    )
    return pack(address, frames, more.get("files", {}), more.get("key", kit.centre.key))


def _answers(kit: Kit) -> CarriedAnswers:
    return CarriedAnswers(kit.site.directory)


def _take(kit: Kit, data: bytes, **policy: Any) -> list[Done]:
    parcel = exchange.check(data, kit.site, NOW)
    return exchange.take_in(parcel, kit.site, kit.handler(**policy), kit.outbox, _answers(kit), clock=lambda: kit.now)


def _replies(kit: Kit, now: datetime = NOW) -> Sequence[Frame]:
    """What the site exports, as the server opens it."""
    found = exchange.export(kit.site, _answers(kit), now)
    if found.data is None:
        return ()
    return _opened(kit, found.data, now).frames


def _opened(kit: Kit, data: bytes, now: datetime = NOW) -> Parcel:
    return open_parcel(data, "replies", kit.site.federation, lambda _site: kit.site.key.public, now)


def test_the_handler_answers_and_the_answers_are_the_sites_own(kit: Kit) -> None:
    plan = kit.centre.plan()
    prepare, train = kit.centre.prepare(kit.site, plan), kit.centre.train(kit.site, plan)
    told = []
    parcel = exchange.check(_file(kit, train, prepare), kit.site, NOW)
    done = exchange.take_in(
        parcel, kit.site, kit.handler(), kit.outbox, _answers(kit), clock=lambda: kit.now,
        progress=lambda number, count, header: told.append((number, count, header.kind)),
    )  # fmt: skip
    assert told == [(1, 2, "prepare"), (2, 2, "train")]
    assert [(item.header.kind, item.state, item.outcome) for item in done] == [
        ("prepare", "answered", "ok"),
        ("train", "answered", "ok"),
    ]
    replies = {messages.read_reply(frame.header).kind: frame for frame in _replies(kit)}
    assert kit.centre.open(kit.site, replies["prepare"], prepare).outcome == "ok"
    assert kit.centre.values(kit.site, replies["train"], train)
    assert len(kit.spent()) == 1


def test_a_file_that_is_imported_twice_changes_nothing(kit: Kit) -> None:
    plan = kit.centre.plan()
    data = _file(kit, kit.centre.prepare(kit.site, plan), kit.centre.train(kit.site, plan))
    _take(kit, data)
    spent, calls, replies = kit.spent(), len(kit.worker.calls), _replies(kit)
    assert [item.state for item in _take(kit, data)] == ["before", "before"]
    assert (kit.spent(), len(kit.worker.calls), _replies(kit)) == (spent, calls, replies)
    # The same instructions in a newer file, as the server exports them again while they are open.
    newer = _file(kit, kit.centre.prepare(kit.site, plan), kit.centre.train(kit.site, plan), sequence=2)
    assert [item.state for item in _take(kit, newer)] == ["before", "before"]
    assert kit.spent() == spent


def test_an_import_that_was_cut_off_is_repeated_and_pays_once(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = kit.centre.plan()
    data = _file(kit, kit.centre.prepare(kit.site, plan), kit.centre.train(kit.site, plan))
    keep = CarriedAnswers.keep

    def killed(self: CarriedAnswers, instruction: str, header: Any, reply: Frame) -> Any:
        if header.kind == "train":
            raise KeyboardInterrupt
        return keep(self, instruction, header, reply)

    with monkeypatch.context() as patch:
        patch.setattr(CarriedAnswers, "keep", killed)
        with pytest.raises(KeyboardInterrupt):
            _take(kit, data)
    spent = kit.spent()
    assert [item.state for item in _take(kit, data)] == ["before", "answered"]
    assert kit.spent() == spent
    assert len(_replies(kit)) == 2


def test_the_policy_is_the_same_and_a_refusal_travels(kit: Kit) -> None:
    prepare = kit.centre.prepare(kit.site, kit.centre.plan())
    (done,) = _take(kit, _file(kit, prepare), tasks=("ward",))
    assert (done.state, done.outcome, done.code) == ("answered", "refused", RefusalCode.POLICY)
    (reply,) = _replies(kit)
    assert kit.centre.open(kit.site, reply, prepare).code is RefusalCode.POLICY
    assert kit.spent() == []
    assert not kit.worker.touched_data


def test_what_waits_for_a_person_is_not_carried_and_is_done_after_the_approval(kit: Kit) -> None:
    plan = kit.centre.plan()
    data = _file(kit, kit.centre.prepare(kit.site, plan))
    (done,) = _take(kit, data, approval="each")
    assert (done.state, done.code) == ("later", RefusalCode.APPROVAL)
    assert _replies(kit) == ()
    Approvals(kit.site.directory / approvals.FOLDER).decide(plan, "approved", by="operator", now=instants.text(NOW))
    (done,) = _take(kit, data, approval="each")
    assert (done.state, done.outcome) == ("answered", "ok")
    assert len(_replies(kit)) == 1


def test_work_before_its_plan_is_refused_by_name_and_nothing_is_taken_in(kit: Kit) -> None:
    plan = kit.centre.plan()
    first = _file(kit, kit.centre.prepare(kit.site, plan), sequence=1)
    second = _file(kit, kit.centre.train(kit.site, plan), sequence=2)
    with pytest.raises(TrustError, match="before the file with its plan") as refused:
        _take(kit, second)
    assert refused.value.refusal is RefusalCode.PLAN_UNKNOWN
    assert _replies(kit) == ()
    assert [item.outcome for item in _take(kit, first) + _take(kit, second)] == ["ok", "ok"]


def test_files_of_different_runs_come_in_any_order(kit: Kit) -> None:
    plans = [kit.centre.plan(run_id=f"01ARZ3NDEKTSV4RRFFQ69G5FA{letter}") for letter in "VWX"]
    files = [
        _file(kit, kit.centre.prepare(kit.site, plan), sequence=number) for number, plan in enumerate(plans, start=1)
    ]
    random.Random(3).shuffle(files)
    for data in [*files, *files]:
        assert [item.outcome for item in _take(kit, data)] == ["ok"]
    assert len(_replies(kit)) == 3


def test_a_file_of_another_site_federation_or_number_is_refused_whole(kit: Kit) -> None:
    other = SigningKey.generate()
    plan = kit.centre.plan()
    prepare = kit.centre.prepare(kit.site, plan)
    theirs = kit.centre.sign(kit.centre.header(kit.site, "prepare", plan, site_id=other.public.id), {})
    cases = [
        (_file(kit, prepare, site_id=other.public.id), RefusalCode.WRONG_SITE),
        (_file(kit, prepare, federation=other.public.id, key=other), RefusalCode.WRONG_SITE),
        (_file(kit, prepare, key=other), RefusalCode.SIGNATURE),
        (_file(kit, prepare, theirs), RefusalCode.WRONG_SITE),
        (_file(kit, prepare)[:-1], RefusalCode.MALFORMED),
    ]
    for data, code in cases:
        with pytest.raises(FedsiteError) as refused:
            _take(kit, data)
        assert refused.value.refusal is code
    _take(kit, _file(kit, prepare, sequence=4))
    with pytest.raises(TrustError) as refused_again:
        _take(kit, _file(kit, kit.centre.train(kit.site, plan), sequence=4))
    assert refused_again.value.refusal is RefusalCode.REPLAYED
    assert len(_replies(kit)) == 1


def test_what_expired_is_not_worked_on_and_not_carried(kit: Kit) -> None:
    plan = kit.centre.plan()
    data = _file(kit, kit.centre.prepare(kit.site, plan))
    kit.now = NOW + timedelta(seconds=61)
    (done,) = _take(kit, data)
    assert done.state == "expired"
    kit.now = NOW
    _take(kit, data)
    assert _replies(kit, NOW + timedelta(seconds=61)) == ()
    assert _replies(kit) == ()


def test_the_end_of_a_run_drops_its_answers(kit: Kit) -> None:
    plan = kit.centre.plan()
    _take(kit, _file(kit, kit.centre.prepare(kit.site, plan), sequence=1))
    finish = kit.centre.ask(kit.site, "finish", plan, body={"outcome": "completed"})
    (done,) = _take(kit, _file(kit, finish, sequence=2))
    assert (done.state, done.outcome) == ("answered", "ok")
    assert [messages.read_reply(frame.header).kind for frame in _replies(kit)] == ["finish"]


def test_releases_come_with_the_file_and_nothing_else_does(kit: Kit) -> None:
    path = "/releases/1/model.onnx"
    fetch = exchange.fetcher(exchange.check(_file(kit, files={path: b"onnx"}), kit.site, NOW))
    assert fetch(path, 10) == b"onnx"
    for asked, limit in ((path, 3), ("/releases/1/manifest.json", 10)):
        with pytest.raises(UnreachableError, match="does not bring"):
            fetch(asked, limit)


def test_a_release_that_came_with_the_file_is_installed_by_the_verified_path(kit: Kit) -> None:
    import numpy as np

    from fedsite.client.device.slots import Slots, fetch_and_install
    from fedsite.protocol import release
    from tests.toy_release import linear, signed

    weight = np.ones((11, 5), np.float32)
    model = linear(weight)
    manifest = signed(kit.centre, model, weight)
    good = {"/releases/1.0/manifest.json": manifest, "/releases/1.0/model.onnx": model}
    body = {"version": "1.0", "manifest_hash": release.manifest_hash(manifest)}
    slots = Slots(kit.site.directory, kit.site.federation, clock=lambda: kit.now)
    outcomes = []
    for attempt, files in enumerate(({**good, "/releases/1.0/model.onnx": model + b"x"}, {}, good), start=1):
        install = kit.centre.ask(kit.site, "install", kit.centre.plan(), round=3, body=body, attempt=attempt)
        parcel = exchange.check(_file(kit, install, sequence=attempt, files=files), kit.site, NOW)
        fetch = exchange.fetcher(parcel)
        handler = kit.built(
            install=lambda version, digest, fetch=fetch: fetch_and_install(
                slots, fetch, lambda slot: None, version, digest
            )
        )
        done = exchange.take_in(parcel, kit.site, handler, kit.outbox, _answers(kit), clock=lambda: kit.now)
        outcomes += [item.outcome for item in done]
    assert [outcome == "ok" for outcome in outcomes] == [False, False, True]
    assert slots.current().manifest.version == "1.0"
