"""What the site's log says of the answers of its handler, and what happens where it cannot be written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.audit import log as audit_log
from fedsite.client.identity.site import Site
from fedsite.protocol import audit, audit_lines, audit_logs, shape
from fedsite.protocol.audit import Entry, Head
from fedsite.protocol.audit_file import AuditFile
from fedsite.protocol.errors import RefusalCode, StorageError
from fedsite.protocol.messages import Frame, read_header, read_reply
from fedsite.protocol.secagg import context

CENTRES = Head(sequence=7, hash="ab" * 32)


def entries(kit: Any) -> list[Entry]:
    files = audit_lines.files(kit.site.directory / "audit" / kit.site.id)
    return [audit.read(line.data) for line in audit_lines.lines(files)]


def kinds(kit: Any) -> list[str]:
    return [entry.kind for entry in entries(kit)]


def told(frame: Frame) -> Head:
    return audit.read_head(read_reply(frame.header).body["audit"])


def with_head(kit: Any, frame: Frame, head: Any) -> Frame:
    """The same instruction from a centre that keeps a log."""
    header = read_header(frame.header)
    signed: Frame = kit.centre.sign(replace(header, body={**header.body, "audit": head}), frame.blobs)
    return signed


def test_a_run_is_told_and_its_replies_bring_the_head(kit: Any, not_private: dict[str, Any]) -> None:
    plan = kit.centre.plan()
    answers = kit.logged()
    kit.answer(prepared := kit.centre.prepare(kit.site, plan), answers)
    frame = answers.handle(kit.centre.train(kit.site, plan))
    assert kinds(kit) == ["begun", "policy", "accepted", "released"]
    released = entries(kit)[-1]
    assert told(frame) == released.head
    assert released.facts["sha256"] == hashlib.sha256(frame.blobs["sealed"]).hexdigest()
    assert released.facts["run_id"] == plan.run_id
    assert released.facts["plan"] == plan.hash
    assert released.facts["spends"]
    ledger = released.facts["ledger"]
    assert ledger["before"]["budget"] == ledger["after"]["budget"]
    assert ledger["before"]["sequence"] < ledger["after"]["sequence"]
    assert prepared.size


def test_the_centres_head_stands_in_the_next_entry(kit: Any) -> None:
    plan, answers = kit.centre.plan(), kit.logged()
    answers.handle(with_head(kit, kit.centre.prepare(kit.site, plan), shape.plain(CENTRES)))
    assert entries(kit)[-1].heads == {kit.site.federation.id: CENTRES}
    answers.handle(kit.centre.train(kit.site, plan))
    assert entries(kit)[-1].heads == {}  # nothing new was heard


@pytest.mark.parametrize("head", [None, {}, {"sequence": 1, "hash": "x"}, [1], "7"])
def test_what_is_no_head_is_refused(kit: Any, head: Any) -> None:
    frame = with_head(kit, kit.centre.prepare(kit.site, kit.centre.plan()), head)
    reply = kit.answer(frame, kit.logged())
    assert (reply.outcome, reply.code) == ("refused", RefusalCode.MALFORMED)


def test_a_refusal_is_told_with_its_code_and_brings_the_head(kit: Any) -> None:
    answers = kit.logged()
    frame = answers.handle(kit.centre.train(kit.site, kit.centre.plan()))
    assert read_reply(frame.header).code == RefusalCode.PLAN_UNKNOWN
    assert entries(kit)[-1].kind == "refused"
    assert entries(kit)[-1].facts["code"] == "plan-unknown"
    assert told(frame) == entries(kit)[-1].head


def test_the_head_is_no_part_of_the_work(kit: Any) -> None:
    """Another attempt with another head at the same work sends the same values, and pays nothing."""
    plan, answers = kit.centre.plan(), kit.logged()
    answers.handle(kit.centre.prepare(kit.site, plan))
    first = with_head(kit, kit.centre.train(kit.site, plan), shape.plain(CENTRES))
    again = with_head(kit, kit.centre.train(kit.site, plan, attempt=2), shape.plain(replace(CENTRES, sequence=8)))
    assert kit.answer(first, answers).outcome == "ok"
    spent, calls = kit.spent(), len(kit.worker.calls)
    assert kit.answer(again, answers).outcome == "ok"
    assert (kit.spent(), len(kit.worker.calls)) == (spent, calls)


def test_a_full_disk_keeps_a_release_at_home_and_pays_once(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, answers = kit.centre.plan(), kit.logged()
    answers.handle(kit.centre.prepare(kit.site, plan))
    asked = kit.centre.train(kit.site, plan)
    real = AuditFile.append

    def full(log: AuditFile, kind: str, facts: Mapping[str, Any], heads: Any = None) -> Head:
        if kind == "released":
            raise StorageError("No space left on device")
        return real(log, kind, facts, heads)

    with monkeypatch.context() as patch:
        patch.setattr(AuditFile, "append", full)
        frame = answers.handle(asked)
    reply = read_reply(frame.header)
    assert (reply.outcome, reply.code, dict(frame.blobs)) == ("failed", RefusalCode.STORAGE, {})
    spent = kit.spent()
    assert kit.answer(asked, answers).outcome == "ok"
    assert kit.spent() == spent
    assert kinds(kit)[-2:] == ["refused", "released"]


def test_a_sum_is_told_with_what_its_session_was_bound_to(party: Any) -> None:
    party.prepare()
    kit = party.kits[0]
    answers = kit.logged()
    for frame in (party.advertise_frame(kit),):
        answers.handle(frame)
    party.reach("mask")
    mask = answers.handle(party.mask_frame(kit))
    found = entries(kit)[-1]
    assert found.kind == "masked"
    assert found.facts["sha256"] == hashlib.sha256(mask.blobs["masked"]).hexdigest()
    assert found.facts["u1"] == found.facts["u2"] == {"sites": 3, "hash": context.set_hash(party.ids).hex()}
    assert len(found.facts["roster_hash"]) == len(found.facts["session"]) == 64


def test_nothing_secret_or_measured_stands_in_a_log(party: Any) -> None:
    party.reach("mask")
    kit = party.kits[0]
    frame = kit.logged().handle(party.mask_frame(kit))
    text = b"".join(path.read_bytes() for path in audit_lines.files(kit.site.directory / "audit" / kit.site.id))
    state = kit.site.directory
    assert kit.site.key.seed.hex().encode() not in text
    assert frame.blobs["masked"][:8].hex().encode() not in text
    assert str(state).encode() not in text


def test_the_log_of_a_run_is_whole_and_a_cut_end_is_seen_against_the_last_reply(kit: Any, tmp_path: Path) -> None:
    plan, answers = kit.centre.plan(), kit.logged()
    answers.handle(kit.centre.prepare(kit.site, plan))
    last = told(answers.handle(kit.centre.train(kit.site, plan)))
    folder = kit.site.directory / "audit"
    held = tmp_path / "heads.json"
    held.write_text(
        f'{{"schema":"{audit.HEADS_SCHEMA}","heads":'
        f'[{{"signer":"{kit.site.id}","sequence":{last.sequence},"hash":"{last.hash}"}}]}}'
    )
    (good,) = audit_logs.check([folder], [held])
    assert (good.verdict.ok, good.verdict.held) == (True, 1)
    (path,) = audit_lines.files(folder / kit.site.id)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    (cut,) = audit_logs.check([folder], [held])
    assert cut.verdict.problem is not None
    assert (cut.verdict.problem.entry, cut.verdict.problem.fault) == (last.sequence, "cut")


def test_a_command_writes_where_a_site_has_joined(joined: Site, tmp_path: Path) -> None:
    audit_log.record(tmp_path / "nowhere", "left", {})
    audit_log.record(joined.directory, "approved", {"by": "op"})
    (one,) = audit_logs.check([joined.directory / "audit"])
    assert one.verdict.ok
    assert one.verdict.head is not None
    assert one.verdict.head.sequence == 2


def test_what_nobody_has_checked_does_not_fill_the_log(kit: Any) -> None:
    """A run's name has one length: else a few messages would push everything else out of what is kept."""
    plan = kit.centre.plan()
    frame = kit.centre.prepare(kit.site, plan)
    long = replace(frame, header=frame.header.replace(plan.run_id.encode(), b"x" * 1_000_000))
    reply = read_reply(kit.logged().handle(long).header)
    assert (reply.code, len(reply.run_id)) == (RefusalCode.SIGNATURE, 26)
    assert entries(kit)[-1].facts["code"] == RefusalCode.SIGNATURE
    assert len(entries(kit)[-1].facts["run_id"]) == 26
