"""Whatever happens to the budget's files, no figure in them becomes a smaller one: it is refused, or as it was."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fedsite.client.ledger.budget import Budget
from fedsite.client.ledger.covered import hashed
from fedsite.privacy.accounting import Spend
from fedsite.protocol.errors import BudgetError, StorageError
from fedsite.telemetry.coverage import Coverage
from tests.budgets import AT, KEY, RUN_COST
from tests.ledger_play import apart

RUNS = 9
MARK, WAL, WHOLE = "budget.mark", "budget.db-wal", "budget.db"
QUESTIONS = [("window", "/a.csv"), ("entity", "/a.csv"), ("entity", "/b.csv"), ("site", "/a.csv")]
ASKED = hashed(Coverage(clock="utc", entities={"pump-1": (5.0, 6.0)}), KEY)

Figures = dict[tuple[str, str, bool], dict[tuple[float, float], int]]


def fill(path: Path, first: int, last: int) -> None:
    """Runs of all units on two sources, some open, with many releases."""
    budget = Budget(path)
    for number in range(first, last):
        run, source = f"run{number}", "/a.csv" if number % 2 else "/b.csv"
        unit = ("window", "entity", "site")[number % 3]
        budget.reserve(
            run_id=run, unit=unit, source=source, task="pump", plan_hash="p", spends=RUN_COST, epsilon=1.0, delta=1e-5,
            now=AT,
        )  # fmt: skip
        budget.cover(run, hashed(Coverage(clock="utc", entities={f"pump-{number % 4}": (0.0, 10.0)}), KEY))
        for release in range(4):
            spend = Spend(noise_multiplier=2.0 + number, sampling_rate=0.1, steps=3 + release)
            budget.commit(run, f"{release:06d}-train-{number:064d}", [spend], AT, unit=unit)
        if number % 3 == 0:
            budget.finish(run, AT)
    budget.close()


def figures(path: Path, *, read_only: bool) -> Figures:
    """Everything a cap is compared with."""
    budget = Budget(path, read_only=read_only)
    try:
        return {
            (unit, source, known): {
                (spend.noise_multiplier, spend.sampling_rate): spend.steps
                for spend in budget.charged(unit, source, covered=ASKED if known else None)
            }
            for unit, source in QUESTIONS
            for known in (False, True)
        }
    finally:
        budget.close()


def not_less(damaged: Path, before: Figures) -> bool:
    """Whether the budget says no less than before; False when it is refused by name."""
    for read_only in (True, False):
        try:
            found = figures(damaged / WHOLE, read_only=read_only)
        except (BudgetError, StorageError):
            return False
        for question, spends in before.items():
            assert all(found[question].get(key, 0) >= steps for key, steps in spends.items()), question
    return True


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A budget that was closed: no log beside it."""
    folder = tmp_path_factory.mktemp("whole")
    fill(folder / WHOLE, 0, RUNS)
    assert not (folder / WAL).exists()
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A budget whose process was killed: the last runs are in the log alone."""
    folder = tmp_path_factory.mktemp("killed")
    fill(folder / WHOLE, 0, RUNS - 3)
    apart(partial(_left_open, folder / WHOLE))
    assert (folder / WAL).stat().st_size > 4096
    return folder


def _left_open(path: Path, say: Callable[[str, bytes], None]) -> None:
    held = Budget(path)  # the last one to close would empty the log
    fill(path, RUNS - 3, RUNS)
    assert held.entries()


@pytest.fixture(scope="module")
def before(whole: Path, killed: Path) -> Figures:
    """The truth, which is the same of both."""
    found = figures(whole / WHOLE, read_only=True)
    assert figures(killed / WHOLE, read_only=True) == found
    assert all(found.values())
    return found


@pytest.fixture
def copies(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies of a folder, to be damaged."""
    count = iter(range(1 << 20))

    def copy(folder: Path) -> Path:
        made = tmp_path / str(next(count))
        shutil.copytree(folder, made)
        return made

    return copy


def damage(data: bytes, kind: str, draw: random.Random) -> bytes:
    """The same bytes with an accident."""
    found, at = bytearray(data), draw.randrange(len(data))
    page = at - at % 4096
    if kind == "bit":
        found[at] ^= 1 << draw.randrange(8)
    elif kind == "bytes":
        length = draw.randrange(1, 32)
        found[at : at + length] = draw.randbytes(len(found[at : at + length]))
    elif kind == "zeros":
        found[page : page + 4096] = bytes(len(found[page : page + 4096]))
    elif kind == "cut":
        del found[at:]
    elif kind == "page twice":
        other = draw.randrange(0, len(found), 4096)
        found[page : page + 4096] = found[other : other + 4096]
    return bytes(found)


KINDS = ("bit", "bytes", "zeros", "cut", "page twice")


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_damaged_file_is_refused_or_says_no_less(
    whole: Path, before: Figures, copies: Callable[[Path], Path], count: int
) -> None:
    for seed in range(count):
        folder = copies(whole)  # named by the seed
        (folder / WHOLE).write_bytes(damage((folder / WHOLE).read_bytes(), _kind(seed), random.Random(seed)))
        not_less(folder, before)
        shutil.rmtree(folder)


@pytest.mark.parametrize("count", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_a_damaged_log_is_refused_or_says_no_less(
    killed: Path, before: Figures, copies: Callable[[Path], Path], count: int
) -> None:
    names = (WAL, WAL, WHOLE, "budget.db-shm")
    for seed in range(count):
        folder, name = copies(killed), names[seed % len(names)]
        (folder / name).write_bytes(damage((folder / name).read_bytes(), _kind(seed), random.Random(seed)))
        not_less(folder, before)
        shutil.rmtree(folder)


def _kind(seed: int) -> str:
    return KINDS[seed % len(KINDS)]


@pytest.mark.parametrize(("first", "step"), [pytest.param(1, 211, marks=pytest.mark.slow), (4, 1499)])
def test_one_bit_anywhere_in_the_file(
    whole: Path, before: Figures, copies: Callable[[Path], Path], first: int, step: int
) -> None:
    """Every so many bytes, and more of the first hundred, which SQLite makes most of."""
    data = (whole / WHOLE).read_bytes()
    folder, refused = copies(whole), 0
    places = [*range(0, 100, first), *range(100, len(data), step)]
    for place in places:
        for name in (WAL, "budget.db-shm"):
            (folder / name).unlink(missing_ok=True)
        found = bytearray(data)
        found[place] ^= 1 << place % 8
        (folder / WHOLE).write_bytes(bytes(found))
        refused += not not_less(folder, before)
    assert refused > len(places) // 10  # most of a small file is free space


@pytest.mark.parametrize("name", [MARK, WAL, WHOLE])
def test_a_file_that_is_gone(killed: Path, before: Figures, copies: Callable[[Path], Path], name: str) -> None:
    folder = copies(killed)
    (folder / name).unlink()
    assert not_less(folder, before) is (name == MARK)


def test_a_log_cut_anywhere_is_an_older_budget_and_refused(
    killed: Path, before: Figures, copies: Callable[[Path], Path]
) -> None:
    size = (killed / WAL).stat().st_size
    for length in range(0, size, 4096 + 24 + 11):
        folder = copies(killed)
        with (folder / WAL).open("r+b") as file:
            file.truncate(length)
        assert not not_less(folder, before)
        shutil.rmtree(folder)
