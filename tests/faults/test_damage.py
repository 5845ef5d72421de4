"""State files that come back from the disk as something else: a named state each time, nothing sent, nothing paid."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.consent import pause
from fedsite.client.identity import enrolment, site
from fedsite.client.link.unsent import Unsent
from fedsite.protocol.errors import FedsiteError, RefusalCode, TrustError
from fedsite.protocol.kept import keep
from tests.authority import AUTHORITY
from tests.client.conftest import NOW, Kit
from tests.faults.test_link import _kit

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :],
    "zeroes": lambda data: bytes(len(data)),
    "another": lambda data: b'{"schema":"fedsite.other/1"}',
}
damages = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return _kit(tmp_path)


@pytest.fixture(autouse=True)
def _no_traceback(caplog: pytest.LogCaptureFixture) -> Any:
    """Whatever is damaged is met as one of our errors."""
    yield
    assert not [record for record in caplog.records if record.exc_info and record.exc_info[0] is not None]


def spoil(kit: Kit, pattern: str, damage: Callable[[bytes], bytes]) -> Path:
    (path,) = sorted((kit.site.directory / "outbox").rglob(pattern))[-1:]
    data = path.read_bytes()
    path.write_bytes(damage(data))
    assert path.read_bytes() != data
    return path


def trained(kit: Kit) -> Any:
    """A run as far as the first round; the instruction of that round."""
    plan = kit.centre.plan()
    for frame in (kit.centre.prepare(kit.site, plan), kit.centre.ask(kit.site, "statistics", plan)):
        assert kit.answer(frame).outcome == "ok"
    asked = kit.centre.train(kit.site, plan)
    assert kit.answer(asked).outcome == "ok"
    return asked


@damages
def test_a_damaged_reply_is_not_sent_and_another_attempt_brings_the_same_values(kit: Kit, damage: Any) -> None:
    asked = trained(kit)
    before, calls = kit.spent(), len(kit.worker.calls)
    spoil(kit, "*-train-1.reply", damage)
    reply = kit.answer(asked)
    assert (reply.outcome, reply.code) == ("failed", RefusalCode.STORAGE)
    assert kit.answer(kit.centre.train(kit.site, kit.centre.plan(), attempt=2)).outcome == "ok"
    assert kit.spent() == before
    assert len(kit.worker.calls) == calls


@damages
def test_damaged_values_are_not_sent_and_no_others_are_released_in_their_place(kit: Kit, damage: Any) -> None:
    trained(kit)
    before, calls = kit.spent(), len(kit.worker.calls)
    spoil(kit, "*-train.values", damage)
    again = kit.centre.train(kit.site, kit.centre.plan(), attempt=2)
    for _ in range(2):
        reply = kit.answer(again)
        assert (reply.outcome, reply.code) == ("failed", RefusalCode.STORAGE)
    assert kit.spent() == before
    assert len(kit.worker.calls) == calls
    assert kit.answer(kit.centre.train(kit.site, kit.centre.plan(), round=2)).outcome == "ok"  # the run goes on


@damages
def test_a_damaged_plan_is_a_refusal_before_data_is_read(kit: Kit, damage: Any) -> None:
    trained(kit)
    before, calls = kit.spent(), len(kit.worker.calls)
    spoil(kit, "plan.json", damage)
    reply = kit.answer(kit.centre.train(kit.site, kit.centre.plan(), round=2))
    assert reply.code in (RefusalCode.PLAN_INVALID, RefusalCode.STORAGE)
    assert kit.spent() == before
    assert [name for name, _ in kit.worker.calls[calls:]] == []


@damages
def test_a_damaged_list_of_what_was_answered_answers_nothing_more(kit: Kit, damage: Any) -> None:
    trained(kit)
    for number in (2, 3):
        kit.answer(kit.centre.train(kit.site, kit.centre.plan(), round=number))
    before = kit.spent()
    spoil(kit, "closed.json", damage)
    for number in (1, 4):
        reply = kit.answer(kit.centre.train(kit.site, kit.centre.plan(), round=number))
        assert (reply.outcome, reply.code) == ("failed", RefusalCode.STORAGE)
    assert kit.spent() == before


@damages
def test_a_damaged_floor_lets_no_run_begin(kit: Kit, damage: Any) -> None:
    keep(kit.outbox.directory / "floor", b"01AAAAAAAAAAAAAAAAAAAAAAAA")
    spoil(kit, "floor", damage)
    reply = kit.answer(kit.centre.prepare(kit.site, kit.centre.plan()))
    assert (reply.outcome, reply.code) == ("failed", RefusalCode.STORAGE)
    assert not kit.worker.touched_data


@damages
def test_a_damaged_entry_of_an_unsent_answer_is_named_and_dropped(
    kit: Kit, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    asked = kit.centre.prepare(kit.site, kit.centre.plan())
    unsent = Unsent(kit.outbox)
    unsent.answered(unsent.begin(b"note", asked), kit.handler().handle(asked))
    assert len(unsent.pending()) == 1
    path = spoil(kit, "*.entry", damage)
    caplog.set_level(logging.WARNING)
    assert unsent.waiting() == (0, None)
    assert unsent.pending() == []
    assert f"{path.name} is damaged" in caplog.text
    assert not path.exists()


@damages
@pytest.mark.parametrize("name", ["site.json", "federation.json", "identity.key"])
def test_a_damaged_identity_is_named_with_the_way_out(kit: Kit, name: str, damage: Any) -> None:
    directory = kit.site.directory
    (directory / "federation.json").write_bytes(kit.site.federation.encode())
    kit.site.key.save(directory / "identity.key")
    value = {
        "schema": enrolment.STATE_SCHEMA, "site_id": kit.site.id, "name": "alpha", "node_id": "7",
        "address": kit.site.federation.address, "expires": "2036-01-01T00:00:00Z",
    }  # fmt: skip
    (directory / "site.json").write_text(json.dumps(value))
    whole = (directory / name).read_bytes()
    (directory / name).write_bytes(damage(whole))

    with pytest.raises(FedsiteError) as error:
        _start(directory)
    assert name in str(error.value)


@damages
def test_a_damaged_pause_still_holds(kit: Kit, damage: Any) -> None:
    pause.begin(kit.site.directory, None, "maintenance", NOW)
    path = kit.site.directory / pause.FILE
    path.write_bytes(damage(path.read_bytes()))
    held = pause.read(kit.site.directory, NOW)
    assert held is not None


def _start(directory: Path) -> None:
    """What the agent reads of its identity; other letters in a name, or in the certificate, show when it connects."""
    site.load(directory)
    found = enrolment.load_joined(directory)
    assert found is not None
    if (found.name, found.federation.ca_certificate) != ("alpha", AUTHORITY.certificate):
        raise TrustError("site.json or federation.json with other letters: seen when a connection is made")
