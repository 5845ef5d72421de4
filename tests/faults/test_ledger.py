"""The budget through kill -9 at every write, a full disk, a read-only one, and a clock that jumps.

In every place: nothing that was handed over to be sent is missing from the budget, no release is in it twice, what was
reserved stays reserved while its run is open, and the file opens again, or says by name why not.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.budget import Budget
from fedsite.client.budget_entries import Entry
from fedsite.client.worker_link import WorkerError
from tests.budgets import VERSION_1, VERSION_2, old_budget
from tests.ledger_play import NOW, UNIT, Ended, Play, Points, apart, instead

STEPS = {(10.0, 1.0): 1, (2.0, 0.1): 6, (20.0, 1.0): 1}  # of the whole play: statistics, two rounds, a calibration
RESERVED = {(10.0, 1.0): 1, (2.0, 0.1): 9, (20.0, 1.0): 1}
NOBODY = 65534


@pytest.fixture
def quick() -> Iterator[Path]:
    """A directory in memory where there is one: what a killed process has written is there, synchronised or not."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Everything that one run writes, in order."""
    folder = tmp_path_factory.mktemp("whole")
    assert apart(lambda say: _count(Play(folder), folder / "points")).code == 0
    return (folder / "points").read_text().splitlines()


def _count(play: Play, names: Path) -> None:
    points = Points()
    points.watch()
    play.run()
    names.write_text("\n".join(points.names))


def _killed(play: Play, number: int, after: bool, say: Callable[[str, bytes], None]) -> None:
    Points(number, after=after).watch()
    play.sent = say
    play.run()


def entry_of(play: Play) -> Entry | None:
    budget = Budget(play.path)
    try:
        return next((entry for entry in budget.entries() if entry.unit == UNIT), None)
    finally:
        budget.close()


def steps(found: Any) -> dict[tuple[float, float], int]:
    return {(spend.noise_multiplier, spend.sampling_rate): spend.steps for spend in found}


def paid(play: Play) -> Counter[str]:
    """How often each kind of release was charged, by the first words of its name."""
    database = sqlite3.connect(f"file:{play.path}?mode=ro", uri=True)
    try:
        rows = database.execute("SELECT release FROM spent").fetchall()
    finally:
        database.close()
    return Counter(f"{name.split('-')[1]} {int(name.split('-')[0])}" for (name,) in rows)


def check(play: Play, ended: Ended) -> None:
    """What holds at once after a crash."""
    said = [name for name, _ in ended.said]
    entry = entry_of(play)
    if entry is None:
        assert not set(said) - {"error"}
        return
    charged = paid(play)
    assert max(charged.values(), default=1) == 1  # never twice
    for name in said:
        if " " in name:
            assert charged[name] == 1  # never missing
    if "calibrate" in said:
        assert charged["calibrate 2"] == 1
    if entry.finished is None:
        assert steps(entry.charged) == steps(entry.reserved) == RESERVED
    else:
        assert steps(entry.charged) == STEPS
    if "prepare" in said:
        assert entry.covered is not None
        assert len(entry.covered.spans) == 3 if "train 2" in said else True


def check_resumed(play: Play, *before: Ended) -> None:
    """The agent starts again, the server asks again for everything: the end is as if nothing had happened."""
    again = apart(lambda say: _resumed(play, say))
    assert (again.code, [said for said in again.said if said[0] in ("error", "defect")]) == (0, [])
    entry = entry_of(play)
    assert entry is not None
    assert entry.finished is not None
    assert steps(entry.spent) == STEPS
    assert set(paid(play).values()) == {1}
    values: dict[str, set[bytes]] = {}
    for name, data in [*(said for ended in before for said in ended.said), *again.said]:
        if " " in name:
            values.setdefault(name, set()).add(data)
    assert all(len(vectors) == 1 for vectors in values.values())  # what is paid for once is one vector


def _resumed(play: Play, say: Callable[[str, bytes], None]) -> None:
    play.sent = say
    entry = entry_of(play)
    if entry is None or entry.finished is None:
        play.run()
    else:
        play.finish()


def test_every_write_of_a_run_is_watched(points: list[str]) -> None:
    counted = Counter(name.split()[0] for name in points)
    assert counted["COMMIT"] >= 8
    assert counted["INSERT"] >= 10
    assert counted["REPLACE"] >= 7
    assert counted["rename"] >= 10
    assert counted["fsync"] >= 20


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_every_write(quick: Path, points: list[str], after: bool) -> None:
    for number, name in enumerate(points):
        folder = quick / f"{number}"
        folder.mkdir()
        play = Play(folder)
        ended = apart(partial(_killed, play, number, after))
        assert ended.code == -signal.SIGKILL, (number, name, ended.said)
        check(play, ended)
        check_resumed(play, ended)


def test_killed_while_a_refused_run_is_taken_back(quick: Path) -> None:
    """Before anything was released: it is reserved whole, or not at all, and can be asked for again."""
    number, killed = 0, 0
    while True:
        codes = set()
        for after in (False, True):
            folder = quick / f"{number}-{after}"
            folder.mkdir()
            play = Play(folder)
            codes.add(apart(partial(_refused, play, number, after)).code)
            entry = entry_of(play)
            assert entry is None or (steps(entry.reserved), entry.spent, entry.finished) == (RESERVED, (), None)
            check_resumed(play)
        number += 1
        killed += len(codes & {-signal.SIGKILL})
        if -signal.SIGKILL not in codes:
            break
    assert killed >= 30


def _refused(play: Play, number: int, after: bool, say: Callable[[str, bytes], None]) -> None:
    Points(number, after=after).watch()
    play.worker.refuses = True
    with contextlib.suppress(WorkerError):
        play.prepare()


@pytest.mark.slow
def test_killed_twice(quick: Path, points: list[str]) -> None:
    """And killed again on the way back."""
    choice = random.Random(4)
    for number in range(120):
        folder = quick / f"{number}"
        folder.mkdir()
        play = Play(folder)
        first = apart(partial(_killed, play, choice.randrange(len(points)), choice.random() < 0.5))
        second = apart(partial(_killed, play, choice.randrange(len(points)), choice.random() < 0.5))
        assert {first.code, second.code} <= {0, -signal.SIGKILL, 1}
        assert not [said for said in [*first.said, *second.said] if said[0] == "defect"]
        check(play, second)
        if (entry := entry_of(play)) is None or entry.finished is None:
            check_resumed(play, first, second)


@pytest.mark.parametrize("script", [VERSION_1, VERSION_2], ids=["version 1", "version 2"])
def test_killed_while_an_older_file_is_brought_up(tmp_path: Path, script: str) -> None:
    before = {"run1": {(2.0, 0.1): 15, (20.0, 1.0): 1}, "run2": {(3.0, 0.5): 4}}
    number, killed = 0, 0
    while True:
        codes = set()
        for after in (False, True):
            path = old_budget(tmp_path / f"{number}-{after}.db", script)
            ended = apart(partial(_opened, path, number, after))
            codes.add(ended.code)
            budget = Budget(path)
            assert {entry.run_id: steps(entry.charged) for entry in budget.entries()} == before
            budget.close()
            killed += ended.code == -signal.SIGKILL
        number += 1
        if codes == {0}:
            break
    assert killed >= 20


def _opened(path: Path, number: int, after: bool, say: Callable[[str, bytes], None]) -> None:
    Points(number, after=after).watch()
    Budget(path).close()


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
