"""A round of 10,000 sites out of 100,000 on a CUDA device: wall seconds, memory there and here, and the same end.

The works are those of simulation.py. Before that, a cohort of 100 must end where the CPU's executor ends. All windows
are in the host's memory: 1.3 GB for `ae`, 16 GB for `cnn`.

    python tests/benchmarks/simulation_gpu.py [--work ae cnn] [--executor auto] [--rounds 5] [--json]
    python tests/benchmarks/simulation_gpu.py --device cpu --population 2000 --cohort 200   the same code without a GPU
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from typing import Any

import numpy as np
import simulation
import torch

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.vectorised import choice, devices, randomness, schedule
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Job, Layout
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.sums import Sum

CHECKED = 100  # sites that both devices train


def people(job: Job, sites: int) -> Population:
    """Sites of 50 random windows."""
    rng, windows = np.random.default_rng(0), simulation.WINDOWS
    x = rng.standard_normal((sites * windows, job.time, job.features), np.float32)
    y = rng.integers(0, job.outputs, len(x)) if job.loss == "cross_entropy" else np.zeros(0, np.int64)
    return Population(x=x, y=y, offsets=np.arange(sites + 1) * windows, entity=np.zeros(0, np.int64))


class Round:
    """Rounds of one executor on one device."""

    def __init__(self, job: Job, population: Population, executor: str, device: str) -> None:
        self._job, self._population = job, population
        self.chosen = choice.choose(job, population, executor, device)
        self._weights = {key: value.detach().numpy() for key, value in job.module().state_dict().items()}
        self._numbers = Layout.of(job.module()).size
        self.chunk = schedule.chunk_sites(device, self._numbers)

    def run(self, number: int, cohort: int) -> np.ndarray:
        """The mean update."""
        total = Sum.empty(self._numbers)
        sites = randomness.cohort(self._job.seed, number, len(self._population), cohort)
        for chunk in schedule.chunks(self._population, sites, number, self.chunk):
            self.chosen.executor.update(Order(weights=self._weights), chunk, total)
        return total.mean()


def measure(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Of one work."""
    population = people(job, options.population)
    there = Round(job, population, options.executor, options.device)
    here = Round(job, population, "auto", "cpu")
    wanted, found = (way.run(1, CHECKED) for way in (here, there))
    off = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    assert off < 1e-4, f"{options.device} ends {off:.1e} away from the CPU"
    started = time.perf_counter()
    there.run(2, options.cohort)
    first = time.perf_counter() - started
    seconds = []
    for number in range(3, options.rounds + 3):
        started = time.perf_counter()
        there.run(number, options.cohort)
        seconds.append(time.perf_counter() - started)
    cuda = options.device == "cuda"
    return {
        "executor": there.chosen.executor.name,
        "chunk": there.chunk,
        "off": off,
        "first_s": first,
        "round_s": statistics.median(seconds),
        "gflops": simulation.flop(job) * options.cohort / simulation.COHORT / statistics.median(seconds) / 1e9,
        "device_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0,
        "host_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", default=["ae", "cnn"], choices=list(simulation.jobs()))
    parser.add_argument("--executor", default="auto", choices=(choice.AUTO, *choice.NAMES))
    parser.add_argument("--device", default="cuda", choices=devices.NAMES)
    parser.add_argument("--population", type=int, default=100_000)
    parser.add_argument("--cohort", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        devices.check(options.device)
    except ConfigError as error:
        sys.exit(str(error))
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU, one thread"
    value: dict[str, Any] = {
        "schema": "fedsite.benchmark/1",
        "benchmark": "simulation_gpu",
        "device": name,
        "population": options.population,
        "cohort": options.cohort,
        "work": {work: measure(simulation.jobs()[work], options) for work in options.work},
    }
    print(f"{name}: {options.cohort} of {options.population} sites")
    for work, row in value["work"].items():
        print(
            f"{work:6}{row['executor']:10} {row['round_s']:8.2f} s a round, first {row['first_s']:.2f} s, "
            f"{row['gflops']:,.0f} GFLOP/s, chunks of {row['chunk']}, {row['device_gb']:.1f} GB there, "
            f"{row['host_gb']:.1f} GB here, off {row['off']:.0e}"
        )
    if options.json:
        print(json.dumps(value))


if __name__ == "__main__":
    main()
