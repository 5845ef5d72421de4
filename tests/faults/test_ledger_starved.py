"""The budget on a full disk, a read-only one, and by a clock that jumps: what holds after kill -9 holds here."""

from __future__ import annotations

import os
import random
import resource
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_ledger import STEPS, check, check_resumed, entry_of, steps
from tests.ledger_play import NOW, Ended, Play, apart, instead

NOBODY = 65534


@pytest.mark.parametrize("pages", range(1, 24))
def test_a_full_database_is_a_storage_error_and_nothing_is_lost(tmp_path: Path, pages: int) -> None:
    play = Play(tmp_path)
    ended = apart(lambda say: _limited(play, say, pages=pages))
    assert ended.code == 0 or ended.said[-1] == ("error", b"StorageError"), ended.said
    check(play, ended)
    check_resumed(play, ended)


def _limited(play: Play, say: Callable[[str, bytes], None], *, pages: int) -> None:
    connect = sqlite3.connect

    def small(*given: Any, **named: Any) -> sqlite3.Connection:
        database: sqlite3.Connection = connect(*given, **named)
        database.execute(f"PRAGMA max_page_count = {pages}")
        return database

    instead(sqlite3, "connect", small)
    play.sent = say
    play.run()


@pytest.mark.parametrize("kilobytes", [0, *range(1, 64, 3), 96, 128, 192])
def test_a_full_disk_is_a_storage_error_and_nothing_is_lost(tmp_path: Path, kilobytes: int) -> None:
    play = Play(tmp_path)
    ended = apart(lambda say: _short(play, say, kilobytes << 10))
    assert ended.code == 0 or ended.said[-1] == ("error", b"StorageError"), ended.said
    check(play, ended)
    check_resumed(play, ended)


def _short(play: Play, say: Callable[[str, bytes], None], size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    play.sent = say
    play.run()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that another user can be let into."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


@pytest.mark.parametrize("begun", [False, True], ids=["new", "begun"])
def test_a_read_only_directory_is_named_and_nothing_is_lost(shared: Path, begun: bool) -> None:
    play = Play(shared)
    (shared / "outbox").mkdir(mode=0o700)
    if begun:
        apart(lambda say: play.prepare())
    everything = [shared, *shared.rglob("*")]
    if os.geteuid() == 0:
        for path in everything:
            os.chown(path, NOBODY, NOBODY)
    for path in reversed(everything):
        path.chmod(0o500 if path.is_dir() else 0o400)
    ended = apart(lambda say: _as_nobody(play, say))
    assert ended.said == [("error", b"StorageError")]
    for path in everything:
        path.chmod(0o700 if path.is_dir() else 0o600)
    check(play, ended)
    check_resumed(play)


def _as_nobody(play: Play, say: Callable[[str, bytes], None]) -> None:
    if os.geteuid() == 0:
        os.setuid(NOBODY)
    play.sent = say
    play.run()


@pytest.mark.parametrize("seed", range(12))
def test_a_clock_that_jumps_an_hour_changes_no_figure(tmp_path: Path, seed: int) -> None:
    jumps = random.Random(seed)

    def clock() -> datetime:
        return NOW + timedelta(hours=jumps.choice((-1, 0, 1)), seconds=jumps.randrange(60))

    play = Play(tmp_path, clock=clock)
    said: list[tuple[str, bytes]] = []
    play.sent = lambda name, data: said.append((name, data))
    play.run()
    check(play, Ended(code=0, said=said))
    play.finish()
    play.sent = lambda name, data: None
    entry = entry_of(play)
    assert entry is not None
    assert steps(entry.spent) == STEPS
