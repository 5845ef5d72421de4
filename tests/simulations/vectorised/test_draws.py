"""A site that takes its draws in order trains on the batches that the engine draws all at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedsite.client.work.train import train
from fedsite.models import vector
from fedsite.privacy.sampling import SeededSource
from fedsite.simulations.vectorised.draws import Drawn
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Job, Layout
from fedsite.simulations.vectorised.loop import Loop
from fedsite.simulations.vectorised.schedule import Chunk
from fedsite.simulations.vectorised.sums import Sum
from fedsite.telemetry.dataset import Windows
from tests.simulated_jobs import ENTITY, PRIVATE, job, population, weights

EVERYBODY = {"sampling_rate": 1.0, "steps": 3}
JOBS = {
    "open": job(local={"momentum": 0.9}),
    "windows": job(privacy=PRIVATE),
    "every window": job(privacy=PRIVATE, local=EVERYBODY),
    # Entities of about 150 windows, of which 128 enter a step.
    "large entities": job(privacy=ENTITY, local={"sampling_rate": 0.6}),
    "every large entity": job(privacy=ENTITY, local=EVERYBODY),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_site_that_draws_in_order_trains_like_the_loop(name: str) -> None:
    work: Job = JOBS[name]
    people = population("value", (6, 600 if work.privacy.unit == "entity" else 30))
    site, own = 1, slice(*people.offsets[1:3])
    windows = Windows(
        x=people.x[own],
        y=people.y[own],
        entity=people.entity[own],
        entities=tuple("abcd"),
        time=np.zeros(len(people.x)),
    )
    module = work.module()
    vector.load(module, weights(work))
    source = Drawn(work, 2, site, windows.entity)
    train(module, windows, work.local, work.privacy, work.loss, round_number=2, source=source)
    layout = Layout.of(module)
    wanted = layout.flat(vector.state(module)) - layout.flat(weights(work))
    found = Sum.empty(layout.size)
    Loop(work, people).update(Order(weights=weights(work)), Chunk(round=2, sites=np.array([site])), found)
    assert np.linalg.norm(found.mean() - wanted) <= 1e-5 * np.linalg.norm(wanted)


def test_the_noise_of_an_evaluation_before_training_is_not_a_step() -> None:
    work = job(privacy=dataclasses.replace(PRIVATE, evaluation_noise=1.0), local=EVERYBODY)
    entity = np.zeros(5, np.int64)
    found, plain = Drawn(work, 1, 0, entity, before=SeededSource(1)), Drawn(work, 1, 0, entity)
    assert found.normal(3).tolist() == SeededSource(1).normal(3).tolist()
    assert [found.normal(4).tolist() for _ in range(2)] == [plain.normal(4).tolist() for _ in range(2)]
