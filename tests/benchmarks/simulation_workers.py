"""What a second worker is worth: rounds of the `ae` work by 1 and 2 workers, local processes and Ray's actors.

Each way runs in a process of its own and waits for its turn, so that rounds of all of them alternate. Reported are wall
and CPU seconds of a round, the speed-up over one local worker, seconds until the first round could begin, and the most
memory that all processes of a way held together (proportional set size: what is shared is counted once). All must end
at the same bits.

    python tests/benchmarks/simulation_workers.py [--rounds 7] [--cohort 1000] [--executor batched] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

WAYS = ("local 1", "local 2", "ray 1", "ray 2")


def turn(way: str, cohort: int, executor: str) -> None:
    """One way: a round for each line that comes, a line of JSON after it."""
    import simulation
    import torch

    from fedsite.simulations.vectorised import randomness, schedule, workers
    from fedsite.simulations.vectorised.executor import Order

    started = time.perf_counter()
    torch.set_num_threads(1)
    backend, count = way.split()
    job = simulation.jobs()["ae"]
    people = simulation.people(job)
    weights = {key: value.detach().numpy() for key, value in job.module().state_dict().items()}
    with workers.started(job, people, int(count), executor, "cpu", backend) as crew:

        def run(number: int) -> Any:
            sites = randomness.cohort(job.seed, number, len(people), cohort)
            (total,) = crew.train(Order(weights=weights), [schedule.chunks(people, sites, number)])
            return total

        run(1)
        first = time.perf_counter() - started
        with Watch() as watch:
            run(1)
        tell({"first_s": first, "memory": watch.peak, "executor": crew.chosen.executor.name})
        for number, _ in enumerate(sys.stdin, start=2):
            clock, used = time.perf_counter(), cpu()
            total = run(number)
            wall, spent = time.perf_counter() - clock, cpu() - used
            tell({"wall_s": wall, "cpu_s": spent, "end": int(total.total.sum())})


class Watch:
    """The most memory while the block runs, in bytes."""

    def __enter__(self) -> Watch:
        self.peak, self._over = memory(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self.peak = max(self.peak, memory())


def tell(value: dict[str, Any]) -> None:
    """A line for the parent."""
    print(json.dumps(value), flush=True)


def family() -> list[psutil.Process]:
    """This process and all below it."""
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def memory() -> int:
    """Bytes that they hold together, what several map counted once."""
    return sum(_of(process, lambda one: one.memory_full_info().pss) for process in family())


def cpu() -> float:
    """Seconds that they have computed."""
    return sum(_of(process, lambda one: sum(one.cpu_times()[:2])) for process in family())


def _of(process: psutil.Process, read: Any) -> Any:
    try:
        return read(process)
    except psutil.Error:  # it has just ended
        return 0


def measure(rounds: int, cohort: int, executor: str) -> dict[str, dict[str, Any]]:
    """Figures by way."""
    line = [sys.executable, __file__, "--executor", executor, "--cohort", str(cohort), "--way"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running: dict[str, subprocess.Popen[str]] = {}
    first: dict[str, dict[str, Any]] = {}
    try:
        for way in WAYS:  # one after the other: so each has the machine while it starts
            running[way] = subprocess.Popen(
                [*line, way], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                cwd=Path(__file__).parent,
            )  # fmt: skip
            first[way] = heard(running[way])
        told: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way, child in running.items():
                assert child.stdin is not None
                print("go", file=child.stdin, flush=True)
                told[way].append(heard(child))
    finally:
        for child in running.values():
            child.communicate(timeout=120)
    ends = {tuple(round_["end"] for round_ in found) for found in told.values()}
    assert len(ends) == 1, "the ways do not end at the same bits"
    found = {}
    for way, given in told.items():
        wall, spent = (statistics.median(one[name] for one in given) for name in ("wall_s", "cpu_s"))
        found[way] = {
            "executor": first[way]["executor"], "first_s": round(first[way]["first_s"], 2),
            "memory_mb": first[way]["memory"] >> 20,
            "wall_ms": round(1e3 * wall, 1), "cpu_ms": round(1e3 * spent, 1),
        }  # fmt: skip
    for figures in found.values():
        figures["speed_up"] = round(found[WAYS[0]]["wall_ms"] / figures["wall_ms"], 2)
    return found


def heard(child: subprocess.Popen[str]) -> dict[str, Any]:
    """Its next line."""
    assert child.stdout is not None
    value: dict[str, Any] = json.loads(child.stdout.readline())
    return value


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cohort", type=int, default=1000)
    parser.add_argument("--executor", default="auto")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        turn(options.way, options.cohort, options.executor)
        return
    found = measure(options.rounds, options.cohort, options.executor)
    print(f"{'':9}{'wall ms':>9}{'CPU ms':>9}{'speed-up':>10}{'memory MB':>11}{'first s':>9}  executor")
    for way, row in found.items():
        print(
            f"{way:9}{row['wall_ms']:9.1f}{row['cpu_ms']:9.1f}{row['speed_up']:10.2f}{row['memory_mb']:11}"
            f"{row['first_s']:9.1f}  {row['executor']}"
        )
    if options.json:
        value = {"schema": "fedsite.benchmark/1", "benchmark": "simulation-workers", "cohort": options.cohort}
        print(json.dumps({**value, "load": round(os.getloadavg()[0], 2), "ways": found}))


if __name__ == "__main__":
    main()
