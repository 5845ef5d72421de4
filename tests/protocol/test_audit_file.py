"""A log on the disk: turns, new files, old files, full disks, and a writer that dies at every write."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedsite.protocol import audit, audit_check, audit_lines, storage
from fedsite.protocol.audit_check import HeldHead, Verdict
from fedsite.protocol.audit_file import AuditFile
from fedsite.protocol.errors import IntegrityError, StorageError
from tests.protocol.conftest import NOW, key_of

KEY = key_of("site")
ENDS = ("before", "half", "after")


def log(folder: Path, **options: Any) -> AuditFile:
    return AuditFile(folder, KEY, owner="site", clock=lambda: NOW, **options)


def verdict(folder: Path, **options: Any) -> Verdict:
    return audit_check.verify(audit_lines.lines(audit_lines.files(folder / KEY.public.id)), **options)


def entries(folder: Path) -> list[audit.Entry]:
    return [audit.read(line.data) for line in audit_lines.lines(audit_lines.files(folder / KEY.public.id))]


def test_a_log_begins_with_whose_it_is(tmp_path: Path) -> None:
    first = log(tmp_path).append("joined", {"federation": "f"})
    assert [(entry.sequence, entry.kind) for entry in entries(tmp_path)] == [(1, "begun"), (2, "joined")]
    assert entries(tmp_path)[0].facts["key"] == KEY.public.text
    assert verdict(tmp_path).head == first
    (path,) = audit_lines.files(tmp_path / KEY.public.id)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_two_writers_take_turns(tmp_path: Path) -> None:
    writers = [log(tmp_path) for _ in range(3)]

    def work(writer: AuditFile) -> None:
        for number in range(20):
            writer.append("did", {"number": number})

    threads = [threading.Thread(target=work, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = verdict(tmp_path)
    assert (found.ok, found.head.sequence if found.head else 0) == (True, 61)


def test_a_turn_that_does_not_end_is_named(tmp_path: Path) -> None:
    log(tmp_path).append("did", {})
    with (tmp_path / KEY.public.id / "lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match="another process has held"):
            log(tmp_path, turn_s=0.02).append("did", {})
    log(tmp_path, turn_s=0.02).append("did", {})


def test_files_are_begun_anew_and_the_oldest_dropped_by_name(tmp_path: Path) -> None:
    writer = log(tmp_path, file_bytes=2000, keep_files=3)
    early = [writer.append("did", {"number": number}) for number in range(4)][-1]
    for number in range(60):
        late = writer.append("did", {"number": number, "text": "x" * 40})
    found = verdict(tmp_path, held=[HeldHead(head=late, by="them"), HeldHead(head=early, by="them")])
    assert found.ok, found.problem
    assert (found.first > early.sequence, found.held, found.head) == (True, 1, late)
    assert len(audit_lines.files(tmp_path / KEY.public.id)) == 3
    for path in audit_lines.files(tmp_path / KEY.public.id):
        assert audit.key_of(audit.read(path.read_bytes().partition(b"\n")[0])) == KEY.public
    audit_lines.files(tmp_path / KEY.public.id)[0].unlink()
    problem = verdict(tmp_path).problem
    assert problem is not None
    assert (problem.entry, problem.fault) == (1, "missing")


def test_a_head_is_what_was_appended(tmp_path: Path) -> None:
    writer = log(tmp_path)
    assert writer.head().sequence == 1
    assert writer.append("did", {}) == writer.head() == log(tmp_path).head()


@pytest.mark.parametrize("end", [b'{"half": ', b"\x00" * 40, b"x"])
def test_a_torn_line_is_set_aside_by_name(tmp_path: Path, end: bytes) -> None:
    log(tmp_path).append("did", {})
    (path,) = audit_lines.files(tmp_path / KEY.public.id)
    with path.open("ab") as file:
        file.write(end)
    writer = log(tmp_path)
    writer.append("did", {})
    (_, _, torn, _) = entries(tmp_path)
    (part,) = torn.facts["parts"]
    assert (torn.kind, part["bytes"]) == ("torn", len(end))
    assert (path.parent / part["file"]).read_bytes() == end
    assert verdict(tmp_path).ok


def test_a_line_that_only_lacks_its_end_is_completed(tmp_path: Path) -> None:
    log(tmp_path).append("did", {})
    (path,) = audit_lines.files(tmp_path / KEY.public.id)
    path.write_bytes(path.read_bytes()[:-1])
    log(tmp_path).append("did", {})
    assert [entry.kind for entry in entries(tmp_path)] == ["begun", "did", "did"]
    assert verdict(tmp_path).ok


def test_nothing_is_chained_to_an_entry_that_was_changed(tmp_path: Path) -> None:
    log(tmp_path).append("did", {"cost": 1})
    (path,) = audit_lines.files(tmp_path / KEY.public.id)
    path.write_bytes(path.read_bytes().replace(b'"cost":1', b'"cost":2'))
    with pytest.raises(IntegrityError, match="not as it was signed") as caught:
        log(tmp_path).append("did", {})
    assert "fedsite audit verify" in caught.value.next_step
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_nothing_more_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    writer = log(tmp_path)
    before = writer.append("did", {})
    real = os.write

    def full(handle: int, *data: Any) -> int:
        if call == "write" and len(data[0]) > 20:
            return real(handle, data[0][:20])
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(f"fedsite.protocol.audit_file.os.{call}", full)
        with pytest.raises(StorageError, match=os.strerror(number)):
            writer.append("did", {"again": True})
    assert verdict(tmp_path).head == before
    writer.append("did", {})
    assert [entry.kind for entry in entries(tmp_path)] == ["begun", "did", "did"]


@pytest.fixture(scope="module")
def writer() -> Iterator[Callable[[Path, int, str], bool]]:
    """Has somebody append to a log until its n-th write, and tells whether that killed it."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.protocol.audit_writer"],
        cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None

    def life(folder: Path, call: int, end: str) -> bool:
        print(json.dumps({"folder": str(folder), "call": call, "end": end}), file=child.stdin, flush=True)
        ended = int(child.stdout.readline())  # type: ignore[union-attr]
        assert ended in (0, -signal.SIGKILL)
        return ended != 0

    yield life
    child.stdin.close()
    child.wait(timeout=10)
    child.stdout.close()


def checked(folder: Path) -> None:
    """What a writer had promised is there, what it left half done is mended, and nothing is lost silently."""
    path = folder / "told"
    told = path.read_text().splitlines() if path.exists() else []
    promised = [HeldHead(head=audit.read_head(json.loads(line)), by="the writer") for line in told]
    after = log(folder, file_bytes=900, keep_files=2).append("after", {})
    found = verdict(folder, held=promised)
    assert found.ok, found.problem
    assert found.head == after
    assert after.sequence > max((held.head.sequence for held in promised), default=0)
    kept = {part["file"] for entry in entries(folder) if entry.kind == audit.TORN for part in entry.facts["parts"]}
    gone = any(entry.kind == audit.DROPPED for entry in entries(folder))
    assert gone or {path.name for path in (folder / KEY.public.id).glob("*.part")} == kept


@pytest.mark.parametrize("end", ENDS)
def test_a_writer_killed_at_any_write_loses_nothing_it_had_promised(
    tmp_path: Path, writer: Callable[[Path, int, str], bool], end: str
) -> None:
    for call in itertools.count(1):
        folder = storage.private_directory(tmp_path / str(call))
        died = writer(folder, call, end)
        checked(folder)
        if not died:
            break
    assert call > 20


@pytest.mark.parametrize("end", ENDS)
def test_the_mending_of_a_torn_line_may_be_killed_too(
    tmp_path: Path, writer: Callable[[Path, int, str], bool], end: str
) -> None:
    for call in range(1, 12):
        folder = tmp_path / str(call)
        log(folder).append("did", {})
        (path,) = audit_lines.files(folder / KEY.public.id)
        with path.open("ab") as file:
            file.write(b'{"torn')
        writer(folder, call, end)
        checked(folder)
        assert any(part.read_bytes() == b'{"torn' for part in (folder / KEY.public.id).glob("*.part"))


def test_a_line_longer_than_any_entry_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_LINE", 4000)
    monkeypatch.setattr(audit_lines, "_TAIL", 100)
    log(tmp_path).append("did", {})
    (path,) = audit_lines.files(tmp_path / KEY.public.id)
    with path.open("ab") as file:
        file.write(b"x" * 20_000)
    with pytest.raises(IntegrityError, match="longer than any entry"):
        log(tmp_path).append("did", {})


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO])
def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def none(*_given: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fedsite.protocol.audit_file.fcntl.flock", none)
    with pytest.raises(StorageError, match=os.strerror(number)):
        log(tmp_path).append("did", {})
