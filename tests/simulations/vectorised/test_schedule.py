"""Batches: every window once an epoch, each with its probability in Poisson draws, the same in any company."""

from __future__ import annotations

import numpy as np
import pytest

from fedsite.protocol.errors import DataError
from fedsite.simulations.vectorised import schedule
from fedsite.simulations.vectorised.job import Epochs
from fedsite.simulations.vectorised.schedule import Chunk
from tests.simulated_jobs import ENTITY, PRIVATE, job, population


def test_an_epoch_visits_every_window_once() -> None:
    people = population("value", (7, 3))
    plan = schedule.schedule(job(epochs=Epochs(batch=3, count=2)), people, Chunk(round=1, sites=np.array([0, 1])))
    assert plan.steps.tolist() == [6, 2]
    assert plan.counts.tolist() == [[3, 3, 1, 3, 3, 1], [3, 3, 0, 0, 0, 0]]
    for epoch in (slice(0, 3), slice(3, 6)):
        seen = np.concatenate([rows[:count] for rows, count in zip(plan.rows[0, epoch], plan.counts[0, epoch])])  # noqa: B905
        assert sorted(seen.tolist()) == list(range(7))
    assert plan.rows[0, :3].tolist() != plan.rows[0, 3:].tolist()
    assert sorted(plan.rows[1, 0].tolist()) == [7, 8, 9]


def test_poisson_batches_have_the_rate_of_the_plan() -> None:
    people = population("value", (400, 300))
    plan = schedule.schedule(
        job(local={"steps": 100, "sampling_rate": 0.1}), people, Chunk(round=1, sites=np.array([0, 1]))
    )
    assert abs(plan.counts[0].mean() - 40) < 3
    assert abs(plan.counts[0].var() - 36) < 20
    rows = plan.rows[1, 0, : plan.counts[1, 0]]
    assert (np.diff(rows) > 0).all()
    assert rows.min() >= 400


def test_with_rate_one_everybody_joins() -> None:
    plan = schedule.schedule(
        job(local={"sampling_rate": 1.0}), population("value"), Chunk(round=1, sites=np.array([2, 0]))
    )
    assert (plan.counts == [[29], [17]]).all()


@pytest.mark.parametrize("kind", ["poisson", "epochs", "entity"])
def test_a_site_gets_the_same_batches_in_any_company(kind: str) -> None:
    people = population("value")
    work = {"poisson": job(privacy=PRIVATE), "epochs": job(epochs=Epochs(batch=4)), "entity": job(privacy=ENTITY)}[kind]
    alone = schedule.schedule(work, people, Chunk(round=3, sites=np.array([4])))
    together = schedule.schedule(work, people, Chunk(round=3, sites=np.array([2, 4, 1])))
    for step in range(int(alone.steps[0])):
        count = alone.counts[0, step]
        assert together.counts[1, step] == count
        assert alone.rows[0, step, :count].tolist() == together.rows[1, step, :count].tolist()


def test_an_entity_joins_with_all_its_windows() -> None:
    people = population("value")
    plan = schedule.schedule(job(privacy=ENTITY), people, Chunk(round=1, sites=np.array([2, 0])))
    assert plan.unit is not None
    own = people.entity[people.offsets[2] : people.offsets[3]]
    for step in range(4):
        rows, unit = (array[0, step, : plan.counts[0, step]] for array in (plan.rows, plan.unit))
        for number in np.unique(unit):
            entities = np.unique(people.entity[rows[unit == number]])
            assert len(entities) == 1
            assert (unit == number).sum() == (own == entities[0]).sum()


def test_chunks_hold_everybody_and_shards_are_even() -> None:
    people = population("value")
    cut = schedule.chunks(people, np.arange(5), 1, size=2)
    assert [chunk.sites.tolist() for chunk in cut] == [[2, 4], [0], [3], [1]]
    assert [len(chunk.sites) for chunk in schedule.chunks(population("value", (3,) * 100), np.arange(100), 1)] == [
        17, 17, 16, 17, 17, 16
    ]  # fmt: skip
    assert [[chunk.sites.tolist() for chunk in shard] for shard in schedule.shards(people, cut, 2)] == [
        [[2, 4]],
        [[0], [3], [1]],
    ]


def test_a_site_without_windows_is_named() -> None:
    with pytest.raises(DataError, match="site 1 has no training windows"):
        schedule.chunks(population("value", (3, 0, 2)), np.arange(3), 1)


def test_draws_in_blocks_are_the_draws_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    people, chunk = population("value"), Chunk(round=2, sites=np.array([2, 4, 0]))
    whole = schedule.schedule(job(), people, chunk)
    for draws in (1, 60, 200):  # a step, some steps, a site at a time
        monkeypatch.setattr(schedule, "_DRAWS", draws)
        parts = schedule.schedule(job(), people, chunk)
        assert np.array_equal(parts.rows, whole.rows)
        assert np.array_equal(parts.counts, whole.counts)
