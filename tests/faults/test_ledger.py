"""The budget through kill -9 at every write.

In every place: nothing that was handed over to be sent is missing from the budget, no release is in it twice, what was
reserved stays reserved while its run is open, and the file opens again, or says by name why not.
"""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.ledger.budget import Budget
from fedsite.client.ledger.budget_entries import Entry
from fedsite.client.work.worker_link import WorkerError
from tests.budgets import VERSION_1, VERSION_2, old_budget
from tests.ledger_play import UNIT, Ended, Play, Points, apart

STEPS = {(10.0, 1.0): 1, (2.0, 0.1): 6, (20.0, 1.0): 1}  # of the whole play: statistics, two rounds, a calibration
RESERVED = {(10.0, 1.0): 1, (2.0, 0.1): 9, (20.0, 1.0): 1}
EVERY = pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 11])


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


@EVERY
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_every_write(quick: Path, points: list[str], after: bool, every: int) -> None:
    for number, name in [*enumerate(points)][every // 2 if after else 0 :: every]:
        folder = quick / f"{number}"
        folder.mkdir()
        play = Play(folder)
        ended = apart(partial(_killed, play, number, after))
        assert ended.code == -signal.SIGKILL, (number, name, ended.said)
        check(play, ended)
        check_resumed(play, ended)


@EVERY
def test_killed_while_a_refused_run_is_taken_back(quick: Path, every: int) -> None:
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
        number += every
        killed += len(codes & {-signal.SIGKILL})
        if -signal.SIGKILL not in codes:
            break
    assert killed * every >= 30


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


@EVERY
@pytest.mark.parametrize("script", [VERSION_1, VERSION_2], ids=["version 1", "version 2"])
def test_killed_while_an_older_file_is_brought_up(tmp_path: Path, script: str, every: int) -> None:
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
        number += every
        if codes == {0}:
            break
    assert killed * every >= 20


def _opened(path: Path, number: int, after: bool, say: Callable[[str, bytes], None]) -> None:
    Points(number, after=after).watch()
    Budget(path).close()
