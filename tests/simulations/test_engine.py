"""Rounds of the vectorised engine: a step that fits on paper, and the same bits from any number of workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedsite.protocol.errors import ConfigError, DataError
from fedsite.protocol.plan import LocalPlan, ModelPlan
from fedsite.server.strategies.fedavg import FedAvg
from fedsite.simulations.engine import Round, Scale, simulate
from fedsite.simulations.vectorised.job import Epochs, Job
from fedsite.simulations.vectorised.population import Population
from tests.simulated_jobs import PRIVATE, job, population, weights


def test_one_round_fits_on_paper() -> None:
    # y = w·x + b from w = 1, b = 0. Site 0 has (x 1, y 3): gradient -4 for both, so +2 at rate 0.5.
    # Site 1 has (2, 2) three times: no error, no step. Weighted by windows: (2 · 1 + 0 · 3) / 4 = 0.5.
    work = Job(
        model=ModelPlan(name="mlp", options={"hidden": []}),
        time=1,
        features=1,
        outputs=1,
        loss="mse",
        local=LocalPlan(steps=1, sampling_rate=1.0, learning_rate=0.5),
    )
    people = Population(
        x=np.array([1, 2, 2, 2], np.float32).reshape(4, 1, 1),
        y=np.array([[3], [2], [2], [2]], np.float32),
        offsets=np.array([0, 1, 4]),
        entity=np.zeros(4, np.int64),
    )
    start = {"layers.0.weight": np.ones((1, 1), np.float32), "layers.0.bias": np.zeros(1, np.float32)}
    told: list[Round] = []
    found = simulate(
        work,
        people,
        FedAvg(),
        Scale(rounds=1, cohort=5, executor="batched"),
        judge=lambda params: float(params["layers.0.weight"][0, 0]),
        initial=start,
        tell=told.append,
    )
    assert found.params["layers.0.weight"].tolist() == [[1.5]]
    assert found.params["layers.0.bias"].tolist() == [0.5]
    assert (told[0].sites, told[0].weight, told[0].metric) == (2, 4, 1.5)
    assert (found.executor, found.workers, found.rounds) == ("batched", 1, tuple(told))


def test_two_workers_give_the_bits_of_one() -> None:
    people = population("value", tuple(range(3, 53)))
    work = job(privacy=PRIVATE, local={"momentum": 0.5})
    one, two = (
        simulate(work, people, FedAvg(), Scale(rounds=2, cohort=45, workers=count, executor="batched"))
        for count in (1, 2)
    )
    assert one.digest == two.digest
    assert two.rounds[0].sites == 45


def test_a_run_depends_on_its_seed_alone() -> None:
    people, scale = population("value"), Scale(rounds=2, cohort=3, executor="batched", evaluate_every=2)
    first, again = (simulate(job(), people, FedAvg(), scale, judge=lambda params: 1.0) for _ in range(2))
    other = simulate(job(epochs=Epochs(batch=3)), people, FedAvg(), scale)
    assert first.digest == again.digest != other.digest
    assert [done.metric for done in first.rounds] == [None, 1.0]


def test_a_population_is_mapped_from_files(tmp_path: Path) -> None:
    people = population("class")
    people.save(tmp_path)
    mapped = Population.open(tmp_path)
    assert isinstance(mapped.x, np.memmap)
    scale = Scale(rounds=1, cohort=5, executor="batched")
    work = job("cross_entropy")
    runs = [simulate(work, found, FedAvg(), scale, initial=weights(work)).digest for found in (people, mapped)]
    assert runs[0] == runs[1]


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"simulation.cohort is 0"):
        Scale(rounds=1, cohort=0)
    with pytest.raises(ConfigError, match=r"simulation.workers is 0"):
        simulate(job(), population("value"), FedAvg(), Scale(rounds=1, cohort=2, workers=0))
    with pytest.raises(ConfigError, match="Poisson batches"):
        job(privacy=PRIVATE, epochs=Epochs(batch=2))
    with pytest.raises(DataError, match="do not cover 3 windows"):
        Population(
            x=np.zeros((3, 1, 1), np.float32), y=np.zeros(3), offsets=np.array([0, 2]), entity=np.zeros(3, np.int64)
        )
