"""Random schedules of dropouts: each sum is exact, or given up by name.

`python -m tests.secagg_schedules KIND COUNT SEED` prints how many were finished; a wrong sum ends it with a traceback.
"""

from __future__ import annotations

import random
import sys

import numpy as np

from fedsite.protocol.errors import PolicyError, RefusalCode
from fedsite.protocol.secagg.manifest import Terms
from tests.secagg_cohort import Cohort


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


def small(chance: random.Random, schedules: int) -> int:
    """How many sums of 3 to 12 sites were finished."""
    finished = 0
    for _ in range(schedules):
        cohort = Cohort(chance.randint(3, 12), words=2, terms=Terms(colluding=chance.choice([0, 0, 1])))
        finished += play(cohort, chance, chance.choice([0.0, 0.05, 0.15]))
    return finished


def sixty_four(chance: random.Random, schedules: int) -> int:
    """The same of 64 sites, 20 of which may collude."""
    terms = Terms(min_cohort=30, min_survivors=30, colluding=20)
    return sum(play(Cohort(64, words=2, terms=terms), chance, 0.04) for _ in range(schedules))


def sparse(chance: random.Random, schedules: int) -> int:
    """The same of 300 sites, each with neighbours on a ring, and confirmations."""
    return sum(play(Cohort(300, words=2), chance, 0.02) for _ in range(schedules))


if __name__ == "__main__":
    kind, count, seed = sys.argv[1:]
    kinds = {"small": small, "sixty-four": sixty_four, "sparse": sparse}
    print(kinds[kind](random.Random(f"{kind} {seed}"), int(count)))
