"""A site that is killed, or has a full disk, at any write of an answer: the log is whole, and never behind what left.

One answer is a release: data is read, the budget charged, the log written, the reply kept. In every place: what was
handed over to be sent stands in the log, its price is charged once, and the next start goes on by itself.
"""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.audit.log import SiteAudit
from fedsite.client.handler import Handler
from fedsite.client.identity.site import Site
from fedsite.client.settings import PolicySettings, Settings
from fedsite.protocol import audit, audit_lines, audit_logs
from fedsite.protocol.audit import Entry
from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, read_reply
from tests.client.conftest import Centre, FakeWorker, Kit
from tests.ledger_play import Points, apart, instead

HOW = ("before", "half", "after")


class Scene:
    """A site that has accepted a run, on the disk; and what it is asked next."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        centre = Centre()
        site = Site(directory=folder, name="alpha", federation=centre.federation, key=SigningKey.generate())
        self.kit = Kit(centre=centre, site=site, worker=FakeWorker(), settings=Settings(policy=PolicySettings()))
        plan = centre.plan()
        assert read_reply(self.handler().handle(centre.prepare(site, plan)).header).outcome == "ok"
        self.asked = centre.train(site, plan)

    def handler(self) -> Handler:
        return self.kit.logged()

    def copied(self, to: Path) -> Scene:
        """The same site in another place."""
        shutil.copytree(self.folder, to)
        found = object.__new__(Scene)
        found.folder, found.asked = to, self.asked
        found.kit = replace(self.kit, site=replace(self.kit.site, directory=to))
        return found

    def entries(self) -> list[Entry]:
        files = audit_lines.files(self.folder / "audit" / self.kit.site.id)
        return [audit.read(line.data) for line in audit_lines.lines(files)]

    def released(self) -> list[str]:
        """SHA-256 of everything that the log says was released."""
        return [entry.facts["sha256"] for entry in self.entries() if entry.kind == "released"]

    def whole(self) -> bool:
        (checked,) = audit_logs.check([self.folder / "audit"])
        return checked.verdict.ok


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """In memory where there is such a folder: what a killed process has written is there, synchronised or not."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        (Path(folder) / "first").mkdir()
        yield Scene(Path(folder) / "first")


def sent(frame: Frame) -> str:
    return hashlib.sha256(frame.blobs["sealed"]).hexdigest()


def answer(scene: Scene, watch: Callable[[], None], say: Callable[[str, bytes], None]) -> None:
    handler = scene.handler()
    watch()
    frame = handler.handle(scene.asked)
    say("sent", sent(frame).encode())


def watched(number: int, how: str) -> None:
    """Die at the write of this number: before it, after half of it, or after it."""
    points = Points(number, after=how == "after")
    points.watch()
    write = os.write

    def half(handle: int, data: Any) -> int:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return write(handle, data)  # what is said
        if how == "half" and points.count == number:
            write(handle, bytes(data)[: len(data) // 2])
        return int(points.at("write", lambda: write(handle, data)))

    instead(os, "write", half)


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("how", HOW)
def test_a_site_killed_at_any_write_of_an_answer_has_told_what_left(scene: Scene, how: str, every: int) -> None:
    number = HOW.index(how) % every
    while True:
        one = scene.copied(scene.folder.with_name(f"{how}-{number}-{every}"))
        ended = apart(partial(answer, one, partial(watched, number, how)))
        left = [digest.decode() for name, digest in ended.said if name == "sent"]
        assert ended.code in (0, -signal.SIGKILL), ended.said
        again = one.handler().handle(one.asked)
        assert read_reply(again.header).outcome == "ok", number
        assert one.whole(), number
        assert {*left, sent(again)} <= set(one.released()), number
        assert len(one.kit.spent()) == 1, number  # one release, charged once
        shutil.rmtree(one.folder)
        if ended.code == 0:
            break
        number += every
    assert number > 15


def full(room: int) -> None:
    """No file of this process grows beyond so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))


def test_a_log_that_cannot_grow_keeps_the_release_at_home(scene: Scene) -> None:
    one = scene.copied(scene.folder.with_name("full"))
    (path,) = audit_lines.files(one.folder / "audit" / one.kit.site.id)
    real = os.write

    def no_room(handle: int, data: Any) -> int:
        if os.fstat(handle).st_ino == path.stat().st_ino:
            # Some of the line fits, as on a disk that fills up.
            real(handle, bytes(data)[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, data)

    def asked(say: Callable[[str, bytes], None]) -> None:
        handler = one.handler()
        instead(os, "write", no_room)
        frame = handler.handle(one.asked)
        instead(os, "write", real)
        say("blobs", str(sorted(frame.blobs)).encode())
        say("code", str(read_reply(frame.header).code).encode())

    ended = apart(asked)
    assert dict(ended.said) == {"blobs": b"[]", "code": str(RefusalCode.STORAGE).encode()}
    assert one.whole()
    assert one.released() == []
    assert len(one.kit.spent()) == 1  # it was made and paid for, and is sent when there is room
    again = one.handler().handle(one.asked)
    assert one.released() == [sent(again)]
    assert len(one.kit.spent()) == 1


def test_a_file_limit_is_a_full_disk(scene: Scene) -> None:
    one = scene.copied(scene.folder.with_name("limit"))
    (path,) = audit_lines.files(one.folder / "audit" / one.kit.site.id)

    def asked(say: Callable[[str, bytes], None]) -> None:
        log = SiteAudit(one.kit.site, one.kit.budget_path)
        full(path.stat().st_size + 50)
        try:
            log("released", {"text": "x" * 200})
        except Exception as error:
            say(type(error).__name__, str(error).encode()[:200])

    ((name, text),) = apart(asked).said
    assert name == "StorageError"
    assert b"ulimit" in text
    assert one.whole()
