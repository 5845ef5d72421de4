"""What the server's log says of a run, and how the heads of both sides go there and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fedsite.protocol import audit, audit_lines, audit_logs, shape
from fedsite.protocol.audit import Entry, Head
from fedsite.protocol.audit_file import AuditFile
from fedsite.protocol.errors import RefusalCode, StorageError
from fedsite.protocol.keys import SIGNATURE_BYTES
from fedsite.server import audit_log
from tests.secure_play import NAMES, at, play
from tests.simulated_fleet import Played, SimulatedFleet
from tests.simulated_site import SimulatedSite


def log_of(folder: Path, fleet: SimulatedFleet) -> AuditFile:
    return AuditFile(folder / "audit", fleet.key, owner="server")


def entries(log: AuditFile) -> list[Entry]:
    return [audit.read(line.data) for line in audit_lines.lines(audit_lines.files(log.folder))]


def of(log: AuditFile, kind: str) -> list[dict[str, Any]]:
    return [entry.facts for entry in entries(log) if entry.kind == kind]


def keeps_a_log(site: SimulatedSite, folder: Path) -> AuditFile:
    """Make a site write down what it answers, as the real one does."""
    log = AuditFile(folder / "sites", site.key, owner="site")
    honest = site.reply

    def reply(header: Any, frame: Any, values: Any, body: Any, *rest: Any, **changes: Any) -> Any:
        heads = {}
        if audit.FIELD in header.body:
            heads[site.federation.id] = audit.read_head(header.body[audit.FIELD])
        head = log.append("answered", {"kind": header.kind}, heads)
        return honest(header, frame, values, {**body, audit.FIELD: shape.plain(head)}, *rest, **changes)

    site.reply = reply  # type: ignore[method-assign]
    return log


@pytest.fixture
def fleet() -> SimulatedFleet:
    return SimulatedFleet(NAMES[:3])


def test_a_secure_run_is_told(tmp_path: Path, fleet: SimulatedFleet) -> None:
    log = log_of(tmp_path, fleet)
    found = play(tmp_path, fleet, log=log).run()
    assert found.result["outcome"] == "completed"
    kinds = [entry.kind for entry in entries(log)]
    assert kinds[0] == "begun"
    assert kinds[-1] == "finished"
    assert {"started", "exchange", "sum", "round_finished", "checkpoint"} <= set(kinds)
    (told,) = [facts for facts in of(log, "sum") if facts["purpose"] == "train"]
    ids = sorted(site.key.public.id for site in fleet.all)
    assert sorted(told["u1"]) == sorted(told["u2"]) == sorted(told["u3"]) == sorted(told["masked"]) == ids
    assert (told["outcome"], told["run_id"]) == ("opened", found.run.run_id)
    assert all(len(bytes.fromhex(signature)) == SIGNATURE_BYTES for signature in told["u1"].values())
    (event,) = [item for item in found.events if item["kind"] == "sum" and item["purpose"] == "train"]
    assert told["roster_hash"] == event["roster_hash"]
    masked = [facts for facts in of(log, "exchange") if facts["kind"] == "train"][-1]["sites"]
    assert {site: one["blobs"]["masked"] for site, one in masked.items()} == told["masked"]


def test_heads_go_there_and_back(tmp_path: Path, fleet: SimulatedFleet) -> None:
    log = log_of(tmp_path, fleet)
    sites = [keeps_a_log(site, tmp_path) for site in fleet.all]
    found = play(tmp_path, fleet, log=log, rounds={"count": 2}).run()
    assert found.result["outcome"] == "completed"
    for checked in audit_logs.check([log.folder, *(site.folder for site in sites)]):
        assert checked.verdict.ok, checked.verdict.problem
        assert checked.verdict.held >= 4
    last = {name: head for entry in entries(log) for name, head in entry.heads.items()}
    assert last == {site.folder.name: site.head() for site in sites}


def test_a_site_that_rewrites_its_log_is_seen_at_the_server(tmp_path: Path, fleet: SimulatedFleet) -> None:
    log = log_of(tmp_path, fleet)
    site = keeps_a_log(fleet.all[0], tmp_path)
    play(tmp_path, fleet, log=log).run()
    (path,) = audit_lines.files(site.folder)
    kept = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(kept[:3]))
    again = AuditFile(tmp_path / "sites", fleet.all[0].key, owner="site")
    for _ in kept:
        again.append("answered", {"kind": "nothing at all"})
    (checked,) = audit_logs.check([site.folder], [log.folder])
    assert checked.verdict.problem is not None
    assert (checked.verdict.problem.entry, checked.verdict.problem.fault) == (4, "rewritten")


def test_a_site_without_a_log_hears_of_ours_only_where_no_work_depends_on_it(
    tmp_path: Path, fleet: SimulatedFleet
) -> None:
    play(tmp_path, fleet, log=log_of(tmp_path, fleet)).run()
    bodies = {(header.kind, audit.FIELD in header.body) for site in fleet.all for header in site.sent}
    assert ("prepare", True) in bodies
    assert ("train", False) in bodies
    assert ("train", True) not in bodies
    assert ("finish", True) in bodies


def test_without_a_log_nothing_is_said(tmp_path: Path, fleet: SimulatedFleet) -> None:
    play(tmp_path, fleet).run()
    assert not any(audit.FIELD in header.body for site in fleet.all for header in site.sent)


@pytest.mark.parametrize("head", [None, 3, {"sequence": -1, "hash": "x"}])
def test_a_head_that_is_none_is_no_answer(tmp_path: Path, fleet: SimulatedFleet, head: Any) -> None:
    def lies(site: SimulatedSite) -> None:
        honest = site.reply

        def reply(header: Any, frame: Any, values: Any, body: Any, *rest: Any, **changes: Any) -> Any:
            return honest(header, frame, values, {**body, audit.FIELD: head}, *rest, **changes)

        site.reply = reply  # type: ignore[method-assign]

    lies(fleet.all[0])
    found = play(tmp_path, fleet, log=log_of(tmp_path, fleet)).run()
    assert found.result["outcome"] == "failed"  # two sites are no cohort
    assert found.result["sites"][0]["code"] == "malformed"


def refused(folder: Path) -> tuple[Played, AuditFile]:
    fleet = SimulatedFleet(NAMES[:4])

    def no(site: SimulatedSite, header: Any, frame: Any) -> list[Any]:
        return [site.reply(header, frame, {}, {}, RefusalCode.BUDGET)]

    at("share", no)(fleet.all[3])
    log = log_of(folder, fleet)
    return play(folder, fleet, log=log).run(), log


def test_a_refusal_is_told_with_its_stage_and_code(tmp_path: Path) -> None:
    found, log = refused(tmp_path)
    assert found.result["outcome"] == "completed"
    (share,) = [facts for facts in of(log, "exchange") if facts["kind"] == "share"]
    ((_, one),) = share["sites"].items()
    assert (one["status"], one["code"]) == ("refused", "budget")


@pytest.mark.parametrize("kind", ["started", "exchange", "sum", "checkpoint", "round_finished"])
def test_a_full_disk_ends_the_run_by_name(
    tmp_path: Path, fleet: SimulatedFleet, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = AuditFile.append

    def full(log: AuditFile, what: str, facts: Mapping[str, Any], heads: Any = None) -> Head:
        if what == kind:
            raise StorageError("audit: No space left on device")
        return real(log, what, facts, heads)

    monkeypatch.setattr(AuditFile, "append", full)
    found = play(tmp_path, fleet, log=log_of(tmp_path, fleet)).run()
    assert found.result["outcome"] == "failed"
    assert "No space left on device" in found.result["reason"]


def test_the_end_of_a_run_is_told_where_it_can_be(
    tmp_path: Path, fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(log: AuditFile, what: str, facts: Mapping[str, Any], heads: Any = None) -> Head:
        raise StorageError("audit: No space left on device")

    monkeypatch.setattr(AuditFile, "append", full)
    found = play(tmp_path, fleet, log=log_of(tmp_path, fleet)).run()
    assert found.events[-1]["kind"] == "finished"


def test_what_fails_after_it_was_told_is_told_too(tmp_path: Path, fleet: SimulatedFleet) -> None:
    log = log_of(tmp_path, fleet)
    append = audit_log.appending(log)
    with pytest.raises(StorageError), audit_log.told(append, "revoked", {"site_id": "s"}):
        raise StorageError("no")
    with audit_log.told(append, "labelled", {}):
        pass
    assert [(entry.kind, entry.facts.get("kind")) for entry in entries(log)[1:]] == [
        ("revoked", None), ("failed", "revoked"), ("labelled", None),
    ]  # fmt: skip


def test_nothing_secret_stands_in_the_log(tmp_path: Path, fleet: SimulatedFleet) -> None:
    log = log_of(tmp_path, fleet)
    found = play(tmp_path, fleet, log=log).run()
    text = b"".join(path.read_bytes() for path in audit_lines.files(log.folder))
    assert found.result["outcome"] == "completed"
    assert fleet.key.seed.hex().encode() not in text
    for site in fleet.all:
        assert site.key.seed.hex().encode() not in text


def test_a_site_is_told_what_was_last_heard_of_its_log_also_by_the_next_run(
    tmp_path: Path, fleet: SimulatedFleet
) -> None:
    log, site = log_of(tmp_path, fleet), fleet.all[0]
    kept = keeps_a_log(site, tmp_path)
    assert play(tmp_path / "first", fleet, log=log).run().result["outcome"] == "completed"
    last, begun = kept.head(), len(site.seen)
    within = [header.body.get(audit.HELD) for header in site.seen]
    assert within[0] is None  # nothing was known yet
    assert within[1:] == [shape.plain(head) for head in _heads(kept)[1 : len(within)]]
    play(tmp_path / "second", fleet, log=log_of(tmp_path, fleet)).run()
    assert site.seen[begun].kind == "prepare"
    assert site.seen[begun].body[audit.HELD] == shape.plain(last)
    assert all(audit.HELD not in header.body for header in fleet.all[1].seen)  # it keeps no log


def _heads(log: AuditFile) -> list[Head]:
    return [entry.head for entry in entries(log)]
