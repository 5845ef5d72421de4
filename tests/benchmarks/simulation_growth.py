"""How time and memory of a simulated round grow with the cohort and with the population.

A dense autoencoder 64-192-64-192-64, 20 windows a site, batches of 10, one local epoch; the population lies in a file
that is mapped. Each measurement is a process of its own: CPU seconds of a round (median), the peak of its resident
memory, and the peak of what of that is not mapped from a file (sampled every 5 ms), which nothing can take back.

    python tests/benchmarks/simulation_growth.py [--executor batched] [--rounds 3]   a table
    python tests/benchmarks/simulation_growth.py --json   one document on the last line
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

WINDOWS, WIDTH, BATCH = 20, 64, 10
POPULATIONS, COHORTS = (1_000, 100_000), (100, 1_000, 10_000)


def write(folder: Path, sites: int) -> None:
    """A population's files, made in pieces."""
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (sites * WINDOWS, 1, WIDTH))
    rng = np.random.default_rng(0)
    for start in range(0, len(x), 20_000):
        part = x[start : start + 20_000]
        part[:] = rng.standard_normal(part.shape, np.float32)
    np.save(folder / "y.npy", np.zeros(0, np.int64))
    np.save(folder / "offsets.npy", np.arange(sites + 1) * WINDOWS)
    np.save(folder / "entity.npy", np.zeros(0, np.int64))


class Watch:
    """The peak of anonymous memory while the block runs, in MiB."""

    def __enter__(self) -> Watch:
        self.peak, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.005):
            self.peak = max(self.peak, memory("RssAnon"))


def memory(kind: str) -> float:
    """Of this process, in MiB. (`ru_maxrss` would also count what started it.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))


def one(folder: Path, cohort: int, rounds: int, executor: str) -> dict[str, float]:
    """Run some rounds here."""
    from fedsite.protocol.plan import LocalPlan, ModelPlan
    from fedsite.server.strategies.fedavg import FedAvg
    from fedsite.simulations.engine import Round, Scale, simulate
    from fedsite.simulations.vectorised.job import Epochs, Job
    from fedsite.simulations.vectorised.population import Population

    work = Job(
        model=ModelPlan(name="autoencoder", options={"hidden": [192], "code": 64, "activation": "relu"}),
        time=1,
        features=WIDTH,
        outputs=1,
        loss="reconstruction",
        local=LocalPlan(steps=1, sampling_rate=1.0, learning_rate=0.05),
        epochs=Epochs(batch=BATCH),
    )
    people = Population.open(folder)
    used, spent = time.process_time(), []

    def tell(_: Round) -> None:
        nonlocal used
        spent.append(time.process_time() - used)
        used = time.process_time()

    simulate(work, people, FedAvg(), Scale(rounds=1, cohort=20, executor=executor))  # compiles, loads, allocates
    used = time.process_time()
    with Watch() as watch:
        simulate(work, people, FedAvg(), Scale(rounds=rounds, cohort=cohort, executor=executor), tell=tell)
    return {"seconds": statistics.median(spent), "anonymous_mib": watch.peak, "resident_mib": memory("VmHWM")}


def main() -> None:
    """Measure every combination, smallest first."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--rounds", type=int, default=3)
    given.add_argument("--executor", default="auto")
    given.add_argument("--json", action="store_true")
    given.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    wanted = given.parse_args()
    if wanted.one:
        print(json.dumps(one(Path(wanted.one[0]), int(wanted.one[1]), wanted.rounds, wanted.executor)))
        return
    found = []
    for sites in POPULATIONS:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), sites)
            for cohort in (size for size in COHORTS if size <= sites):
                own = ["--one", folder, str(cohort), "--rounds", str(wanted.rounds), "--executor", wanted.executor]
                out = subprocess.run([sys.executable, __file__, *own], check=True, capture_output=True, text=True)
                measured = json.loads(out.stdout.splitlines()[-1])
                found.append({"population": sites, "cohort": cohort, **measured})
                if not wanted.json:
                    print(
                        f"population {sites:7,}  cohort {cohort:6,}  {measured['seconds']:8.3f} s a round  "
                        f"{1e3 * measured['seconds'] / cohort:6.3f} ms a site  "
                        f"{measured['anonymous_mib']:6.0f} MiB of its own  {measured['resident_mib']:6.0f} MiB resident"
                    )
    if wanted.json:
        print(json.dumps({"benchmark": "simulation_growth", "executor": wanted.executor, "found": found}))


if __name__ == "__main__":
    main()
