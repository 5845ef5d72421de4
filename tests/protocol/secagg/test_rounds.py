"""Whole sums: exact under any schedule of dropouts, or given up by name; never anything else."""

import hashlib
import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest

from fedsite.protocol.errors import PolicyError, RefusalCode
from fedsite.protocol.secagg.manifest import Terms
from tests.secagg_cohort import Cohort

GOLDEN = Path(__file__).parents[2] / "golden" / "secagg-round.json"


def play(cohort: Cohort, chance: random.Random, rate: float) -> bool:
    """A sum in which each site is lost at each stage with probability `rate`; False when it was given up."""

    def left(sites: tuple[bytes, ...]) -> list[bytes]:
        return [one for one in sites if chance.random() >= rate]

    try:
        cohort.advertise(left(tuple(cohort.ids)))
        cohort.share(left(cohort.sum.roster.sites))
        cohort.mask(left(cohort.sum.u2))
        confirmed = left(cohort.sum.u3)
        if cohort.sum.stage == "confirm":
            cohort.confirm(confirmed)
        else:
            confirmed = list(cohort.sum.u3)
        total = cohort.unmask(left(tuple(confirmed)))
    except PolicyError as error:
        if error.refusal is not RefusalCode.COHORT:
            raise
        return False
    assert np.array_equal(total, cohort.expected())
    return True


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


def small(chance: random.Random, schedules: int) -> int:
    """How many sums of 3 to 12 sites were finished."""
    finished = 0
    for _ in range(schedules):
        cohort = Cohort(chance.randint(3, 12), words=2, terms=Terms(colluding=chance.choice([0, 0, 1])))
        finished += play(cohort, chance, chance.choice([0.0, 0.05, 0.15]))
    return finished


def test_schedules_of_small_cohorts() -> None:
    assert small(random.Random(1), 150) > 40  # the schedules are no mere list of abandoned sums


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_ten_thousand_schedules_of_small_cohorts(part: int) -> None:
    assert small(random.Random(f"2 {part}"), 2_500) > 600


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_two_hundred_schedules_of_sixty_four(part: int) -> None:
    chance = random.Random(f"3 {part}")
    terms = Terms(min_cohort=30, min_survivors=30, colluding=20)
    assert sum(play(Cohort(64, words=2, terms=terms), chance, 0.04) for _ in range(50)) > 25


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_twenty_schedules_of_a_sparse_graph(part: int) -> None:
    chance = random.Random(f"4 {part}")
    assert sum(play(Cohort(300, words=2), chance, 0.02) for _ in range(5)) > 3


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
