"""Answers that were not sent: kept before work begins, found by the next agent, sent once or dropped by name."""

from __future__ import annotations

import base64
from collections import deque
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.link.sending import TRIES, UNDATED, Sending
from fedsite.client.link.unsent import Unsent
from fedsite.protocol import instants
from fedsite.protocol.errors import IntegrityError, StorageError, UnreachableError
from fedsite.protocol.messages import Frame, read_reply

NOTE = b"what the transport needs"


class Server:
    """Takes answers, or what is in `says` instead: an exception, or False when nobody waits."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, Frame]] = []
        self.says: deque[Any] = deque()

    def push(self, received: Any, frame: Frame, noted: Any) -> bool:
        answer = self.says.popleft() if self.says else True
        if isinstance(answer, Exception):
            noted(b"half way")
            raise answer
        self.got.append((received, frame))
        return bool(answer)

    def note(self, received: Any) -> bytes:
        return bytes(received)

    def recall(self, note: bytes) -> Any:
        if note == b"nonsense":
            raise IntegrityError("no message")
        return note

    def activate(self) -> None: ...

    def pull(self) -> None: ...

    def close(self) -> None: ...


def sending(kit: Any, server: Server) -> Sending:
    """As a new agent has it."""
    found = Sending(server, Unsent(kit.outbox, clock=lambda: kit.now), lambda: kit.now)
    found.recall()
    return found


def answer(kit: Any, server: Server, asked: Frame, note: bytes = NOTE) -> Sending:
    """Have an instruction carried out, and hold the answer."""
    waiting = sending(kit, server)
    name = waiting.begin(note, asked)
    waiting.add(name, note, asked, kit.handler().handle(asked))
    return waiting


def entries(kit: Any) -> list[Path]:
    return sorted((kit.site.directory / "outbox" / "unsent").iterdir())


@pytest.fixture
def asked(kit: Any) -> Frame:
    return kit.centre.prepare(kit.site, kit.centre.plan())


def test_an_answer_outlives_the_agent_and_is_sent_once(kit: Any, asked: Frame) -> None:
    server = Server()
    answer(kit, server, asked)
    assert server.got == []
    later = sending(kit, server)
    assert later.left() == {"unsent": 1}
    later.send()
    later.send()
    ((note, frame),) = server.got
    assert note == NOTE
    assert kit.centre.open(kit.site, frame, asked).outcome == "ok"
    assert (later.left(), entries(kit)) == ({}, [])
    sending(kit, server).send()
    assert len(server.got) == 1


def test_a_refusal_outlives_the_agent_too(kit: Any, not_private: dict[str, Any]) -> None:
    server, plan = Server(), kit.centre.plan(**not_private)
    asked = kit.centre.prepare(kit.site, plan)
    answer(kit, server, asked)
    sending(kit, server).send()
    ((_, frame),) = server.got
    assert kit.centre.open(kit.site, frame, asked).outcome == "refused"


def test_what_is_no_instruction_is_answered_all_the_same(kit: Any) -> None:
    server = Server()
    answer(kit, server, Frame(header=b"\xff", signature=b"", blobs={}))
    sending(kit, server).send()
    assert read_reply(server.got[0][1].header).outcome == "refused"


def test_work_that_was_not_finished_is_named_and_forgotten(
    kit: Any, asked: Frame, caplog: pytest.LogCaptureFixture
) -> None:
    sending(kit, Server()).begin(NOTE, asked)  # killed here
    server = Server()
    sending(kit, server).send()
    assert server.got == []
    assert "prepare of run" in caplog.text
    assert "was being worked on when the agent ended" in caplog.text
    assert entries(kit) == []


def test_a_stored_answer_to_another_instruction_of_that_number_is_not_sent(kit: Any, asked: Frame) -> None:
    kit.handler().handle(asked)
    other = kit.centre.prepare(kit.site, kit.centre.plan(), expires=instants.text(kit.now + timedelta(days=1)))
    sending(kit, Server()).begin(NOTE, other)
    server = Server()
    sending(kit, server).send()
    assert server.got == []


def test_what_was_broken_off_goes_on_where_it_was(kit: Any, asked: Frame) -> None:
    server = Server()
    waiting = answer(kit, server, asked)
    server.says.append(UnreachableError("cut"))
    with pytest.raises(UnreachableError):
        waiting.send()
    sending(kit, server).send()
    assert [note for note, _ in server.got] == [b"half way"]


def test_an_answer_nobody_waits_for_is_dropped_by_name(
    kit: Any, asked: Frame, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    server.says.extend([False])
    answer(kit, server, asked).send()
    assert "the answer to prepare of run" in caplog.text
    assert "is not waited for any more and was dropped" in caplog.text
    assert entries(kit) == []


def test_an_expired_answer_is_still_offered_and_dropped_by_name(
    kit: Any, asked: Frame, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    answer(kit, server, asked)
    kit.now += timedelta(hours=1)
    server.says.extend([False])
    sending(kit, server).send()
    assert len(server.got) == 1
    assert "expired with its attempt at 2026-03-01T12:01:00Z and was dropped" in caplog.text


def test_a_server_that_cannot_take_it_gets_it_until_it_has_expired(kit: Any, asked: Frame) -> None:
    server = Server()
    waiting = answer(kit, server, asked)
    server.says.extend([UnreachableError("HTTP 500")] * (TRIES + 2))
    for _ in range(TRIES + 1):
        with pytest.raises(UnreachableError):
            waiting.send()
    kit.now += timedelta(hours=1)
    waiting.send()
    assert (server.got, waiting.left(), entries(kit)) == ([], {}, [])


@pytest.mark.parametrize("restarted", [False, True])
def test_an_answer_without_a_date_is_in_nobodys_way_for_longer_than_a_day(kit: Any, restarted: bool) -> None:
    server = Server()
    waiting = answer(kit, server, kit.centre.prepare(kit.site, kit.centre.plan(), expires=""))
    kit.now += UNDATED
    waiting = sending(kit, server) if restarted else waiting
    server.says.extend([UnreachableError("HTTP 500")] * TRIES)
    for _ in range(TRIES - 1):
        with pytest.raises(UnreachableError):
            waiting.send()
    waiting.send()
    assert (server.got, waiting.left(), entries(kit)) == ([], {}, [])


def test_what_a_killed_agent_was_writing_is_cleared_away(kit: Any, asked: Frame) -> None:
    answer(kit, Server(), asked)
    (entry,) = entries(kit)
    for name in (f".{entry.name}.x1y2.tmp", f"{entry.stem}.new"):
        (entry.parent / name).write_bytes(b"half")
    sending(kit, Server())
    assert entries(kit) == [entry]


def test_several_are_sent_in_the_order_they_were_made(kit: Any) -> None:
    server, plan = Server(), kit.centre.plan()
    kept = [Unsent(kit.outbox, clock=lambda number=number: kit.now + timedelta(seconds=number)) for number in range(3)]
    for number in (2, 0, 1):
        asked = kit.centre.ask(kit.site, "train", plan, round=number + 1)
        name = kept[number].begin(b"%d" % number, asked)
        kept[number].answered(name, kit.handler().handle(asked))
    assert kept[0].waiting() == (3, kit.now)
    sending(kit, server).send()
    assert [note for note, _ in server.got] == [b"0", b"1", b"2"]


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    return data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]


@pytest.mark.parametrize("damage", [_cut, _flip, lambda data: b"", lambda data: b"\0" * len(data)])
def test_a_damaged_entry_costs_its_answer_and_nothing_else(
    kit: Any, asked: Frame, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    answer(kit, server, asked)
    (entry,) = entries(kit)
    entry.write_bytes(damage(entry.read_bytes()))
    sending(kit, server).send()
    assert server.got == []
    assert "is damaged" in caplog.text
    assert entries(kit) == []


@pytest.mark.parametrize("damage", [_cut, _flip, lambda data: b""])
def test_a_damaged_answer_is_not_sent(kit: Any, asked: Frame, damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    answer(kit, server, asked)
    (reply,) = (kit.site.directory / "outbox").rglob("*.reply")
    reply.write_bytes(damage(reply.read_bytes()))
    sending(kit, server).send()
    assert server.got == []
    assert f"{reply.name} is damaged" in caplog.text


def test_a_note_the_transport_does_not_know_is_dropped_by_name(
    kit: Any, asked: Frame, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    answer(kit, server, asked, b"nonsense")
    sending(kit, server).send()
    assert server.got == []
    assert "was dropped: no message" in caplog.text
    assert entries(kit) == []


def test_a_full_disk_is_told_and_the_answer_goes_out_while_the_agent_lives(
    kit: Any, asked: Frame, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StorageError("no space left", next_step="free some")

    server = Server()
    waiting = sending(kit, server)
    with monkeypatch.context() as patch:
        patch.setattr("fedsite.client.link.unsent.keep", full)
        patch.setattr("fedsite.client.store.keep", full)
        name = waiting.begin(NOTE, asked)
        waiting.add(name, NOTE, asked, kit.handler().handle(asked))
        waiting.send()
    ((_, frame),) = server.got
    reply = kit.centre.open(kit.site, frame, asked)
    assert (reply.outcome, reply.code) == ("failed", "storage")
    assert "no space left" in caplog.text


def test_the_reply_to_a_message_is_the_same_in_every_process() -> None:
    from flwr.app import Message, Metadata, RecordDict
    from flwr.app.message import make_message

    from fedsite.client.link.flower_objects import Received, decoded, encoded, reply_to

    metadata = Metadata(7, "m" * 64, 1, 5, "", "", 1_800_000_000.0, 90.0, "query")
    message: Message = make_message(metadata=metadata, content=RecordDict())
    received = Received(run_id=7, message=message, since=0.0, session="s", wanted=("a" * 64,))
    frame = Frame(header=b"header", signature=b"signature", blobs={"b": b"2", "a": b"1"})
    again = decoded(encoded(received), now=3.0)
    assert (again.run_id, again.session, again.wanted, again.offered) == (7, "s", ("a" * 64,), True)
    one, other = reply_to(received.message, frame), reply_to(again.message, frame)
    assert one.object_id == other.object_id
    assert one.metadata.created_at + one.metadata.ttl == 1_800_000_090.0
    for damaged in (b"", b"{}", encoded(received)[:-9], encoded(received).replace(b'"message":"', b'"message":"AAAA')):
        with pytest.raises(IntegrityError):
            decoded(damaged, now=3.0)


def test_files_are_for_the_owner_alone_and_no_run_is_called_unsent(kit: Any, asked: Frame) -> None:
    answer(kit, Server(), asked)
    assert {path.stat().st_mode & 0o077 for path in (kit.site.directory / "outbox").rglob("*")} == {0}
    assert kit.outbox.tidy() == []
    assert len(entries(kit)) == 1
    assert base64.b64encode(asked.header) in entries(kit)[0].read_bytes()
