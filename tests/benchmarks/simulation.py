"""How long a round of simulation takes: the vectorised engine's executors against a plain loop, interleaved.

FedAvg, population 1,000, cohort 100, 50 windows a site, batches of 10, one local epoch: 500 site steps a round. `ae` is
a dense autoencoder 64-192-64-192-64 (49,664 parameters, mean squared error); `dp` the same with every step private,
beside Opacus in a loop. The plain loop keeps one model and takes the same batches. A round starts from the same weights
for all, and must end with the same ones.

    python tests/benchmarks/simulation.py [--work ae dp] [--rounds 7]   a table
    python tests/benchmarks/simulation.py --json   one document on the last line
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import LocalPlan, ModelPlan, PrivacyPlan
from fedsite.simulations.vectorised import choice, randomness, schedule
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Epochs, Job, Layout
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.randomness import Purpose
from fedsite.simulations.vectorised.sums import Sum

SITES, WINDOWS, WIDTH, COHORT, BATCH = 1000, 50, 64, 100, 10
# Multiply-adds of a round: forward, backward to the input of all layers but the first, and the weights' gradient.
_SIZES = (64, 192, 64, 192, 64)
_PAIRS = [inputs * outputs for inputs, outputs in pairwise(_SIZES)]
FLOP = 2 * COHORT * WINDOWS * (3 * sum(_PAIRS) - _PAIRS[0])
Mean = np.ndarray


def jobs() -> dict[str, Job]:
    """What can be measured."""
    local = LocalPlan(steps=WINDOWS // BATCH, sampling_rate=BATCH / WINDOWS, learning_rate=0.05)
    private = PrivacyPlan(mode="sample", clip=1.0, batch=float(BATCH), noise_multiplier=1.0)
    model = ModelPlan(name="autoencoder", options={"hidden": [192], "code": 64, "activation": "relu"})
    same: dict[str, Any] = {"model": model, "time": 1, "features": WIDTH, "outputs": 1, "loss": "reconstruction"}
    return {
        "ae": Job(**same, local=local, epochs=Epochs(batch=BATCH)),
        "dp": Job(**same, local=local, privacy=private),
    }


def people() -> Population:
    """Random windows."""
    x = np.random.default_rng(0).standard_normal((SITES * WINDOWS, 1, WIDTH)).astype(np.float32)
    return Population(
        x=x, y=np.zeros(0, np.int64), offsets=np.arange(SITES + 1) * WINDOWS, entity=np.zeros(len(x), np.int64)
    )


def vectorised(job: Job, population: Population, executor: str) -> Callable[[int], Mean]:
    """One round with an executor, batches drawn and updates summed."""
    chosen = choice.choose(job, population, executor).executor
    weights = {key: value.detach().numpy() for key, value in job.module().state_dict().items()}
    size = Layout.of(job.module()).size

    def run(number: int) -> Mean:
        total = Sum.empty(size)
        for chunk in schedule.chunks(population, randomness.cohort(job.seed, number, SITES, COHORT), number):
            chosen.update(Order(weights=weights), chunk, total)
        return total.mean()

    return run


def plain(job: Job, population: Population) -> Callable[[int], Mean]:
    """The loop that a person would write: one resident model, `backward`, an update of each parameter in place."""
    module = job.module()
    start = [parameter.detach().clone() for parameter in module.parameters()]
    x, rate = torch.from_numpy(population.x), job.local.learning_rate

    def run(number: int) -> Mean:
        total = [torch.zeros_like(parameter) for parameter in start]
        for chunk in schedule.chunks(population, randomness.cohort(job.seed, number, SITES, COHORT), number):
            plan = schedule.schedule(job, population, chunk)
            for site in range(len(chunk.sites)):
                with torch.no_grad():
                    for parameter, origin in zip(module.parameters(), start, strict=True):
                        parameter.copy_(origin)
                for rows in plan.rows[site]:
                    batch = x[rows]
                    module.zero_grad()
                    torch.nn.functional.mse_loss(module(batch), batch).backward()
                    with torch.no_grad():
                        for parameter in module.parameters():
                            assert parameter.grad is not None
                            parameter.sub_(parameter.grad, alpha=rate)
                with torch.no_grad():
                    for into, parameter, origin in zip(total, module.parameters(), start, strict=True):
                        into.add_(parameter - origin)
        return torch.cat([part.flatten() for part in total]).double().numpy() / COHORT

    return run


def opacus(job: Job, population: Population) -> Callable[[int], Mean]:
    """A private loop as Opacus has it: per-sample gradients by its hooks, clipped, summed; the engine's noise."""
    from opacus import GradSampleModule

    module = GradSampleModule(job.module(), loss_reduction="sum")
    parameters = list(module.parameters())
    start = [parameter.detach().clone() for parameter in parameters]
    layout, x, privacy = Layout.of(job.module()), torch.from_numpy(population.x), job.privacy
    rate = job.local.learning_rate

    def run(number: int) -> Mean:
        total = np.zeros(layout.size)
        cohort = randomness.cohort(job.seed, number, SITES, COHORT)
        for chunk in schedule.chunks(population, cohort, number):
            plan = schedule.schedule(job, population, chunk)
            for place, site in enumerate(chunk.sites.tolist()):
                with torch.no_grad():
                    for parameter, origin in zip(parameters, start, strict=True):
                        parameter.copy_(origin)
                for step in range(int(plan.steps[place])):
                    key = randomness.key(job.seed, Purpose.NOISE, number, site, step)[0]
                    found = job.deviation(layout.size) * randomness.normal(np.array(key), layout.size)
                    if count := int(plan.counts[place, step]):
                        batch = x[plan.rows[place, step, :count]]
                        module.zero_grad(set_to_none=True)
                        torch.nn.functional.mse_loss(module(batch), batch, reduction="none").mean(
                            (1, 2)
                        ).sum().backward()
                        rows = [parameter.grad_sample for parameter in parameters]  # type: ignore[attr-defined]
                        norms = torch.stack([row.flatten(1).norm(2, 1) for row in rows], 1).norm(2, 1)
                        scale = (privacy.clip / norms).clamp(max=1.0)
                        found = (
                            found + torch.cat([torch.einsum("n,n...", scale, row).flatten() for row in rows]).numpy()
                        )
                    with torch.no_grad():
                        for parameter, part in zip(
                            parameters, layout.named(found / privacy.batch).values(), strict=True
                        ):
                            parameter.sub_(torch.from_numpy(part).float(), alpha=rate)
                moved = [(parameter - origin).flatten() for parameter, origin in zip(parameters, start, strict=True)]
                total += torch.cat(moved).detach().double().numpy()
        return total / COHORT

    return run


def measure(job: Job, population: Population, rounds: int) -> dict[str, Any]:
    """Medians of wall and CPU seconds by executor, rounds of all of them taking turns."""
    ways: dict[str, Callable[[int], Mean]] = {}
    if not job.private:
        ways["plain loop"] = plain(job, population)
    else:
        ways["Opacus loop"] = opacus(job, population)
    for executor in choice.NAMES[::-1]:
        if job.private and executor == "loop":
            continue  # a gradient for each window: minutes, and the tests compare it
        try:
            ways[executor] = vectorised(job, population, executor)
        except ConfigError as error:
            print(error.found, file=sys.stderr)
    first = {}
    for name, run in ways.items():
        started = time.perf_counter()
        run(1)
        first[name] = time.perf_counter() - started
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    ends: dict[str, Mean] = {}
    for number in range(2, rounds + 2):
        for name, run in ways.items():
            clock, used = time.perf_counter(), time.process_time()
            ends[name] = run(number)
            wall[name].append(time.perf_counter() - clock)
            cpu[name].append(time.process_time() - used)
    reference = next(iter(ways))
    found = {}
    for name in ways:
        off = float(np.linalg.norm(ends[name] - ends[reference]) / np.linalg.norm(ends[reference]))
        assert off < 1e-5, f"{name} ends {off:.1e} away from {reference}"
        seconds = statistics.median(cpu[name])
        found[name] = {
            "wall_ms": 1e3 * statistics.median(wall[name]),
            "cpu_ms": 1e3 * seconds,
            "first_ms": 1e3 * first[name],
            "ratio": statistics.median(cpu[reference]) / seconds,
            "gflops": FLOP / seconds / 1e9,
            "off": off,
        }
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", default=["ae", "dp"], choices=list(jobs()))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    population = people()
    value: dict[str, Any] = {
        "schema": "fedsite.benchmark/1",
        "benchmark": "simulation",
        "rounds": options.rounds,
        "load": round(os.getloadavg()[0], 2),
        "work": {name: measure(jobs()[name], population, options.rounds) for name in options.work},
    }
    print(f"{'':18}{'wall ms':>10}{'CPU ms':>10}{'× first row':>13}{'GFLOP/s':>10}{'first ms':>10}{'off':>10}")
    for name, rows in value["work"].items():
        for way, row in rows.items():
            print(
                f"{name + ' ' + way:18}{row['wall_ms']:10.1f}{row['cpu_ms']:10.1f}{row['ratio']:13.1f}"
                f"{row['gflops']:10.1f}{row['first_ms']:10.0f}{row['off']:10.0e}"
            )
    if options.json:
        print(json.dumps(value))


if __name__ == "__main__":
    main()
