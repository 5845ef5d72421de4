"""Whole sums: exact under any schedule of dropouts, or given up by name; never anything else."""

import hashlib
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.secagg_cohort import Cohort
from tests.secagg_schedules import small

GOLDEN = Path(__file__).parents[2] / "golden" / "secagg-round.json"


def test_three_sites() -> None:
    cohort = Cohort(3)
    cohort.advertise()
    cohort.share()
    cohort.mask()
    assert cohort.unmask().tolist() == [6, 60, 600, 6000]
    assert all(state.stage == "ended" and not state.secret for state in cohort.states.values())


def test_a_masked_vector_looks_nothing_like_its_values() -> None:
    cohort = Cohort(3, words=1000)
    cohort.advertise()
    cohort.share()
    masked = cohort.masked(cohort.ids[0])
    assert abs(float(masked.mean()) / 2**32 - 0.5) < 0.1


@pytest.mark.parametrize("stage", ["share", "mask", "unmask"])
def test_one_of_four_is_lost_in_each_stage(stage: str) -> None:
    for lost in range(4):
        cohort = Cohort(4)
        rest = [one for number, one in enumerate(cohort.ids) if number != lost]
        cohort.advertise()
        cohort.share(rest if stage == "share" else None)
        cohort.mask(rest if stage == "mask" else None)
        total = cohort.unmask(rest if stage == "unmask" else None)
        assert np.array_equal(total, cohort.expected())
        assert len(cohort.sum.u3) == (4 if stage == "unmask" else 3)


def test_schedules_of_small_cohorts() -> None:
    assert small(random.Random(1), 150) > 40  # the schedules are no mere list of abandoned sums


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "schedules", "least"),
    [
        pytest.param("small", 10_000, 2_400, marks=pytest.mark.long),
        pytest.param("sixty-four", 200, 100, marks=pytest.mark.long),
        pytest.param("sparse", 20, 12, marks=pytest.mark.long),
        ("small", 1_000, 240),
        ("sixty-four", 20, 10),
    ],
)
def test_many_random_schedules_of_dropouts(kind: str, schedules: int, least: int) -> None:
    # Two processes, each with schedules of its own: half the time on two cores.
    command = [sys.executable, "-m", "tests.secagg_schedules", kind, str(schedules // 2)]
    root = Path(__file__).parents[3]
    running = [subprocess.Popen([*command, str(seed)], cwd=root, stdout=subprocess.PIPE, text=True) for seed in (1, 2)]
    finished = [int(process.communicate(timeout=850)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sum(finished) > least  # the rest was given up by name


def test_a_sparse_graph_with_confirmations() -> None:
    cohort = Cohort(110, words=2)
    lost = set(cohort.ids[:4])
    cohort.advertise()
    cohort.share()
    cohort.mask([one for one in cohort.sum.u2 if one not in lost])
    assert cohort.sum.stage == "confirm"
    cohort.confirm()
    assert np.array_equal(cohort.unmask(), cohort.expected())


@pytest.mark.parametrize("liars", [(0,), (0, 4)])
def test_holders_that_lie_about_their_shares_are_worked_around(liars: tuple[int, ...]) -> None:
    cohort = Cohort(9)
    cohort.advertise()
    cohort.share()
    cohort.mask()
    for number, one in enumerate(cohort.sum.u3):
        answers = cohort.opened(one)
        if number in liars:
            answers = {source: item[:1] + bytes(32) for source, item in answers.items()}
        cohort.sum.add_opened(one, answers)
    assert np.array_equal(cohort.sum.open().view(np.int32), cohort.expected())


def golden_round() -> dict[str, object]:
    """Every byte of a 3-site sum, from a counter in the place of the operating system's randomness."""
    count = itertools.count()

    def drawn(size: int) -> bytes:
        return hashlib.shake_256(b"golden secagg %d" % next(count)).digest(size)

    cohort = Cohort(3, random=drawn)
    cohort.advertise()
    cohort.share()
    sealed = {one.hex(): {s.hex(): item.hex() for s, item in cohort.sum.shares_for(one).items()} for one in cohort.ids}
    masked = {}
    for one in cohort.ids:
        vector = cohort.masked(one)
        masked[one.hex()] = vector.tolist()
        cohort.sum.add_vector(one, vector)
    cohort.sum.close_vectors()
    opened = {}
    for one in cohort.ids:
        answers = cohort.opened(one)
        opened[one.hex()] = {source.hex(): item.hex() for source, item in answers.items()}
        cohort.sum.add_opened(one, answers)
    return {
        "manifest": cohort.manifest.encode().decode(),
        "roster": cohort.sum.roster.raw.hex(),
        "session": cohort.sum.session.hex(),
        "sealed": sealed,
        "masked": masked,
        "opened": opened,
        "sum": cohort.sum.open().tolist(),
    }


def test_a_golden_round() -> None:
    assert golden_round() == json.loads(GOLDEN.read_text())


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden_round(), indent=1, sort_keys=True) + "\n")
