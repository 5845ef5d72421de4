"""Rounds of the vectorised engine: a step that fits on paper, and the same bits from any number of workers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fedsite.protocol.errors import ConfigError, DataError
from fedsite.protocol.plan import LocalPlan, ModelPlan, ProtectionPlan
from fedsite.server.strategies.fedavg import FedAvg
from fedsite.server.strategies.median import Median
from fedsite.server.strategies.strategy import Aggregator, Arrays, ServerState, Strategy
from fedsite.simulations.engine import Round, Scale, Simulated, simulate
from fedsite.simulations.vectorised.controls import Controls
from fedsite.simulations.vectorised.job import Epochs, Job, Layout
from fedsite.simulations.vectorised.population import Population
from tests.simulated_jobs import BOTH, PRIVATE, job, population, secured, weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected(FedAvg):
    """Sends every site a correction, which is what SCAFFOLD needs of the engine; a tenth of the model will do."""

    compared: bool = False

    def control(self, state: ServerState) -> Arrays | None:
        return {name: 0.1 * value for name, value in state.params.items()}

    def aggregator(self, state: ServerState, trained: tuple[str, ...]) -> Aggregator:
        return (Median() if self.compared else FedAvg()).aggregator(state, trained)


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


def toy(count: int, local: LocalPlan | None = None) -> tuple[Job, Population]:
    """y = w·x from one window (1, 1) at every site; nothing is drawn, so that a step fits on paper."""
    work = Job(
        model=ModelPlan(name="mlp", options={"hidden": []}, trainable="*weight"),
        time=1,
        features=1,
        outputs=1,
        loss="mse",
        local=local or LocalPlan(steps=1, sampling_rate=1.0, learning_rate=0.5),
    )
    people = Population(
        x=np.ones((count, 1, 1), np.float32),
        y=np.ones((count, 1), np.float32),
        offsets=np.arange(count + 1),
        entity=np.zeros(count, np.int64),
    )
    return work, people


START = {"layers.0.weight": np.zeros((1, 1), np.float32), "layers.0.bias": np.zeros(1, np.float32)}


def weight(found: Simulated) -> float:
    return float(found.params["layers.0.weight"][0, 0])


def test_a_poisoned_site_moves_the_mean_and_not_the_median() -> None:
    # From 0 every site steps by 1, to the optimum; one of five sends -3 times that: (4 - 3) / 5, and the median 1.
    work, people = toy(5)
    scale = Scale(rounds=1, cohort=5, executor="loop")
    gains = np.array([1, 1, -3, 1, 1], np.float32)
    mean, median = (
        weight(simulate(work, people, strategy, scale, initial=START, gains=gains)) for strategy in (FedAvg(), Median())
    )
    assert mean == pytest.approx(0.2, abs=1e-6)
    assert median == 1.0
    # Under secure aggregation an update's coordinates are bounded: -100 arrives as -4, so (4 - 4) / 5.
    gains[2] = -100.0
    bounded = dataclasses.replace(work, protection=ProtectionPlan())
    assert weight(simulate(bounded, people, FedAvg(), scale, initial=START, gains=gains)) == pytest.approx(0, abs=1e-6)
    gains[2] = 0.0
    assert weight(simulate(work, people, FedAvg(), scale, initial=START, gains=gains)) == pytest.approx(0.8, abs=1e-6)


def test_rounds_in_which_too_few_arrive_leave_the_model() -> None:
    work, people = toy(5)
    arrive = {1: 0, 2: 2, 3: 5}
    found = simulate(
        work,
        people,
        Median(),
        Scale(rounds=3, cohort=5, executor="loop"),
        initial=START,
        present=lambda number, drawn: drawn[: arrive[number]],
        judge=lambda params: float(params["layers.0.weight"][0, 0]),
    )
    told = [(done.outcome, done.drawn, done.sites, done.metric) for done in found.rounds]
    assert told == [("nobody", 5, 0, 0.0), ("too-few", 5, 2, 0.0), ("done", 5, 5, 1.0)]


def test_those_who_do_not_arrive_do_not_count() -> None:
    people = population("value")
    scale = Scale(rounds=2, cohort=5, executor="batched")
    some = simulate(job(), people, FedAvg(), scale, present=lambda number, drawn: drawn[1:])
    sizes = people.counts[1:].sum()
    assert [(done.drawn, done.sites, done.weight) for done in some.rounds] == [(5, 4, sizes)] * 2
    everybody = simulate(job(), people, FedAvg(), scale)
    assert some.digest != everybody.digest


@pytest.mark.parametrize("kind", ["momentum", "noise", "control"])
def test_a_run_in_pieces_has_the_bits_of_one_go(kind: str, tmp_path: Path) -> None:
    people, controls = population("value"), None
    strategy: Strategy = FedAvg()
    work = job(local={"learning_rate_decay": 0.9, "momentum": 0.5})
    if kind == "noise":
        work = secured()
    if kind == "control":
        work, strategy = job(), Corrected()
        controls = Controls.create(tmp_path / "controls", len(people), Layout.of(work.module()).size)
    scale = Scale(rounds=3, cohort=3, executor="batched")
    whole = simulate(work, people, strategy, scale)
    state, first = None, 1
    for rounds in (1, 2):
        piece = dataclasses.replace(scale, rounds=rounds)
        part = simulate(work, people, strategy, piece, state=state, first=first, controls=controls)
        state, first = part.state, first + rounds
    assert part.digest == whole.digest
    assert [done.number for done in part.rounds] == [2, 3]
    if kind == "control":
        with pytest.raises(ConfigError, match="SCAFFOLD from round 4 without the control variates"):
            simulate(work, people, strategy, scale, state=state, first=4)


def test_two_workers_give_the_bits_of_one() -> None:
    # Noise at the site and in the sum, groups that a strategy compares, control variates in a shared file.
    people = population("value", tuple(range(3, 53)))
    work, strategy = secured(BOTH, groups=3), Corrected(compared=True)
    one, two = (
        simulate(work, people, strategy, Scale(rounds=2, cohort=45, workers=count, executor="batched"))
        for count in (1, 2)
    )
    assert one.digest == two.digest
    assert two.rounds[0].sites == 45


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"simulation.cohort is 0"):
        Scale(rounds=1, cohort=0)
    with pytest.raises(ConfigError, match="SCAFFOLD with optimizer sgd, momentum 0, epochs"):
        simulate(job(epochs=Epochs(batch=3)), population("value"), Corrected(), Scale(rounds=1, cohort=2))
    with pytest.raises(ConfigError, match="first round 0"):
        simulate(job(), population("value"), FedAvg(), Scale(rounds=1, cohort=2), first=0)
    with pytest.raises(ConfigError, match=r"gains of shape \(2,\)"):
        simulate(job(), population("value"), FedAvg(), Scale(rounds=1, cohort=2), gains=np.ones(2, np.float32))
    with pytest.raises(ConfigError, match=r"simulation.workers is 0"):
        simulate(job(), population("value"), FedAvg(), Scale(rounds=1, cohort=2, workers=0))
    with pytest.raises(ConfigError, match="Poisson batches"):
        job(privacy=PRIVATE, epochs=Epochs(batch=2))
    with pytest.raises(DataError, match="do not cover 3 windows"):
        Population(
            x=np.zeros((3, 1, 1), np.float32), y=np.zeros(3), offsets=np.array([0, 2]), entity=np.zeros(3, np.int64)
        )
