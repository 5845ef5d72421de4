"""How long a round of simulation takes: the vectorised engine's executors against a plain loop, interleaved.

FedAvg, population 1,000, cohort 100, 50 windows a site, batches of 10, one local epoch: 500 site steps a round. `ae` is
a dense autoencoder 64-192-64-192-64 (49,664 parameters, mean squared error); `cnn` two convolutions 3x3 (16, 32
channels), each with a pool, and 1568-128-10 on 28x28 (206,922); `cnn1d` two strided convolutions on 64 steps of 6;
`logistic` 64-10. `dp`, `cnn_dp`: the same with every step private, beside Opacus in a loop. The plain loop keeps one
model and takes the same batches. A round starts from the same weights for all, and must end with the same ones (`off`:
how far apart, relative, median of rounds; `float64`: how far one round is from the plain loop in float64).

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
from typing import Any

import numpy as np
import torch
from torch import nn

from fedsite.models import losses
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import LocalPlan, ModelPlan, PrivacyPlan
from fedsite.simulations.vectorised import choice, kernel_cache, randomness, schedule
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Epochs, Job, Layout
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.randomness import Purpose
from fedsite.simulations.vectorised.sums import Sum

SITES, WINDOWS, COHORT, BATCH = 1000, 50, 100, 10
Mean = np.ndarray


def jobs() -> dict[str, Job]:
    """What can be measured."""
    local = LocalPlan(steps=WINDOWS // BATCH, sampling_rate=BATCH / WINDOWS, learning_rate=0.05)
    private = PrivacyPlan(mode="sample", clip=1.0, batch=float(BATCH), noise_multiplier=1.0)

    def job(
        model: str, options: dict[str, Any], shape: tuple[int, int], outputs: int = 1, loss: str = "reconstruction"
    ) -> dict[str, Any]:
        plan = ModelPlan(name=model, options=options if model == "gru" else {"activation": "relu"} | options)
        time_, features = shape
        return {"model": plan, "time": time_, "features": features, "outputs": outputs, "loss": loss, "local": local}

    ae = job("autoencoder", {"hidden": [192], "code": 64}, (1, 64))
    image = {"channels": [16, 32], "stride": 1, "pool": 2, "hidden": [128]}
    cnn = job("cnn2d", image, (28, 28), 10, "cross_entropy")
    wave = {"channels": [16, 32], "kernel": 5, "stride": 2}
    cnn1d = job("cnn1d", wave, (64, 6), 10, "cross_entropy")
    epochs = Epochs(batch=BATCH)
    return {
        "ae": Job(**ae, epochs=epochs),
        "dp": Job(**ae, privacy=private),
        "cnn": Job(**cnn, epochs=epochs),
        "cnn_dp": Job(**cnn, privacy=private),
        "cnn1d": Job(**cnn1d, epochs=epochs),
        "gru": Job(**job("gru", {"hidden": 48}, (32, 6), 1, "mse"), epochs=epochs),
        "logistic": Job(**job("mlp", {"hidden": []}, (1, 64), 10, "cross_entropy"), epochs=epochs),
    }


def people(job: Job) -> Population:
    """Random windows and labels."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SITES * WINDOWS, job.time, job.features), np.float32)
    labels: dict[str, Any] = {
        "cross_entropy": rng.integers(0, job.outputs, len(x)),
        "mse": rng.standard_normal((len(x), job.outputs), np.float32),
    }
    y = labels.get(job.loss, np.zeros(0, np.int64))
    return Population(x=x, y=y, offsets=np.arange(SITES + 1) * WINDOWS, entity=np.zeros(len(x), np.int64))


def flop(job: Job) -> int:
    """Operations of a round's products: forward, the weights' gradient, and back to the input of all but the first."""
    module, counts = job.module(), list[int]()

    def count(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        channels = weight.shape[0]
        counts.append(output.numel() // channels * weight.numel())

    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            layer.register_forward_hook(count)
    module(torch.zeros(1, job.time, job.features))
    return 2 * COHORT * WINDOWS * (3 * sum(counts) - counts[0])


def peak() -> float:
    """GFLOP/s of one core where the kernels' own tile multiplies matrices that stay in the nearest cache."""
    try:
        import numba
    except ImportError:
        return float("nan")
    kernel_cache.warm()  # or products would be kept beside the sources, where Numba misses edits of tiles.py
    from fedsite.simulations.vectorised.products import product

    rows, depth, columns, best = 40, 64, 64, float("inf")
    x, y, z = (np.ones(size, np.float32) for size in (rows * depth, depth * columns, rows * columns))
    one, calls = np.float32(1.0), 2000

    @numba.njit(nogil=True)
    def run(x: Any, y: Any, z: Any) -> None:
        for _ in range(calls):
            product(x, 0, depth, 1, y, 0, columns, z, 0, columns, rows, columns, depth, one, 0)

    run(x, y, z)
    for _ in range(9):
        started = time.process_time()
        run(x, y, z)
        best = min(best, time.process_time() - started)
    return 2 * rows * depth * columns * calls / best / 1e9


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


def plain(job: Job, population: Population, dtype: torch.dtype = torch.float32) -> Callable[[int], Mean]:
    """The loop that a person would write: one resident model, `backward`, an update of each parameter in place."""
    module = job.module().to(dtype)
    start = [parameter.detach().clone() for parameter in module.parameters()]
    x, y = torch.from_numpy(population.x).to(dtype), torch.from_numpy(population.targets(job.loss))
    y = y.to(dtype) if y.is_floating_point() else y
    rate, criterion = job.local.learning_rate, losses.loss_function(job.loss)

    def run(number: int) -> Mean:
        total = [torch.zeros_like(parameter) for parameter in start]
        for chunk in schedule.chunks(population, randomness.cohort(job.seed, number, SITES, COHORT), number):
            plan = schedule.schedule(job, population, chunk)
            for site in range(len(chunk.sites)):
                with torch.no_grad():
                    for parameter, origin in zip(module.parameters(), start, strict=True):
                        parameter.copy_(origin)
                for rows in plan.rows[site]:
                    module.zero_grad()
                    criterion(module(x[rows]), y[rows]).mean().backward()
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
    y = torch.from_numpy(population.targets(job.loss))
    rate, criterion = job.local.learning_rate, losses.loss_function(job.loss)

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
                        drawn = plan.rows[place, step, :count]
                        module.zero_grad(set_to_none=True)
                        criterion(module(x[drawn]), y[drawn]).sum().backward()
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


def measure(job: Job, population: Population, rounds: int, executors: list[str]) -> dict[str, Any]:
    """Medians of wall and CPU seconds by executor, rounds of all of them taking turns."""
    ways: dict[str, Callable[[int], Mean]] = {}
    if not job.private:
        ways["plain loop"] = plain(job, population)
    else:
        ways["Opacus loop"] = opacus(job, population)
    for executor in executors:
        if job.private and executor == "loop":
            continue  # a gradient for each window: minutes, and the tests compare it
        try:
            ways[executor] = vectorised(job, population, executor)
        except ConfigError as error:
            print(error.found, file=sys.stderr)
    first, exact = {}, {}
    truth = None if job.private else plain(job, population, torch.float64)(1)
    for name, run in ways.items():
        started = time.perf_counter()
        end = run(1)
        first[name] = time.perf_counter() - started
        if truth is not None:
            exact[name] = float(np.linalg.norm(end - truth) / np.linalg.norm(truth))
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    apart: dict[str, list[float]] = {name: [] for name in ways}
    reference = next(iter(ways))
    for number in range(2, rounds + 2):
        ends: dict[str, Mean] = {}
        for name, run in ways.items():
            clock, used = time.perf_counter(), time.process_time()
            ends[name] = run(number)
            wall[name].append(time.perf_counter() - clock)
            cpu[name].append(time.process_time() - used)
        size = float(np.linalg.norm(ends[reference]))
        for name in ways:
            apart[name].append(float(np.linalg.norm(ends[name] - ends[reference])) / size)
    found = {}
    for name in ways:
        # A number that rounds to the other side of a ReLU's kink, or of a tie in a pool, sends one window's derivative
        # elsewhere: among millions in a round there is one now and then. The plain loop is no nearer to a float64 one.
        off = statistics.median(apart[name])
        assert off < 1e-4, f"{name} ends {off:.1e} away from {reference}"
        seconds = statistics.median(cpu[name])
        found[name] = {
            "wall_ms": 1e3 * statistics.median(wall[name]),
            "cpu_ms": 1e3 * seconds,
            "first_ms": 1e3 * first[name],
            "ratio": statistics.median(cpu[reference]) / seconds,
            "gflops": flop(job) / seconds / 1e9,
            "off": off,
            "off_float64": exact.get(name),
        }
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", default=["ae", "dp"], choices=list(jobs()))
    parser.add_argument("--executors", nargs="+", default=list(choice.NAMES[::-1]), choices=choice.NAMES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    value: dict[str, Any] = {
        "schema": "fedsite.benchmark/1",
        "benchmark": "simulation",
        "rounds": options.rounds,
        "load": round(os.getloadavg()[0], 2),
        "peak_gflops": peak(),
        "work": {
            name: measure(job, people(job), options.rounds, options.executors)
            for name, job in jobs().items()
            if name in options.work
        },
    }
    print(
        f"{'':18}{'wall ms':>10}{'CPU ms':>10}{'× first row':>13}{'GFLOP/s':>10}"
        f"{'first ms':>10}{'off':>10}{'float64':>10}"
    )
    for name, rows in value["work"].items():
        for way, row in rows.items():
            print(
                f"{name + ' ' + way:18}{row['wall_ms']:10.1f}{row['cpu_ms']:10.1f}{row['ratio']:13.1f}"
                f"{row['gflops']:10.1f}{row['first_ms']:10.0f}{row['off']:10.0e}"
                + (f"{row['off_float64']:10.0e}" if row["off_float64"] is not None else "")
            )
    print(f"a core's peak, measured by a tile of the kernels: {value['peak_gflops']:.0f} GFLOP/s")
    if options.json:
        print(json.dumps(value))


if __name__ == "__main__":
    main()
