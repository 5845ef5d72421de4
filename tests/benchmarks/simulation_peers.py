"""A round of simulation beside pfl-research 0.6.0 and Flower on Ray: same arrays, same batches, rounds taking turns.

FedAvg, population 1,000, cohort 100, 50 windows a site, batches of 10, one local epoch. `ae` is a dense autoencoder
64-192-64-192-64, `cnn` two 3 x 3 convolutions with pooling and 1568-128-10 on 28 x 28. Every contestant is a process
of its own, in an environment of its own, alive for the whole measurement and idle unless it is its turn; processes keep
one thread each. All of them must end with the same model.

    python tests/benchmarks/simulation_peers.py [--work ae cnn] [--rounds 7]   a table
    python tests/benchmarks/simulation_peers.py --json   one document on the last line
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

HERE = Path(__file__).resolve().parent / "simulators"
sys.path.insert(0, str(HERE))

import environments  # noqa: E402
import fedsite_peer as ours  # noqa: E402
import works  # noqa: E402

from fedsite.simulations.vectorised import randomness, schedule  # noqa: E402

RATES = {"ae": 0.05, "cnn": 0.01}
# Multiply-adds of one window, forward: all layers, and the first alone, to whose input nothing is carried back.
_AE = 2 * (64 * 192 + 192 * 64)
_CNN = 28 * 28 * 9 * 16 + 14 * 14 * 9 * 16 * 32 + 1568 * 128 + 128 * 10
FLOP = {
    "ae": 2 * ours.COHORT * ours.WINDOWS * (3 * _AE - 64 * 192),
    "cnn": 2 * ours.COHORT * ours.WINDOWS * (3 * _CNN - 28 * 28 * 9 * 16),
}
SILENCE_S = 600.0  # of a contestant, before it is given up
SAMPLE_S = 0.02  # between two looks at memory
# Of final models, over what the rounds have moved: float32 sums in another order, and what a kink or a tie
# makes of them round after round. At rates above these the convolutions' rounds are chaotic: 5e-2 after eleven.
CLOSE = 1e-3


class Contestant:
    """A process that does one round at a time."""

    def __init__(self, name: str, commands: Sequence[Sequence[str]], end: Path) -> None:
        self.name, self.end = name, end
        # The same interpreter settings for all: one thread to each process, nothing sent home.
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "NUMBA_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "FLWR_TELEMETRY_ENABLED": "0",
        }
        self._log = (end.parent / f"{name.replace(' ', '-')}.log").open("w")
        pipe = subprocess.PIPE
        self._all = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, env=environment, text=True)
            for command in commands
        ]

    def ready(self) -> None:
        """Wait until it has started."""
        self._answers()

    def round(self) -> tuple[float, float]:
        """Wall seconds of the slowest process, and the processor's seconds of all of them with their children."""
        before = self._spent()
        for process in self._all:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        wall = max(float(answer["wall"]) for answer in self._answers())
        return wall, self._spent() - before

    def memory(self) -> int:
        """Proportional set size of its processes now, bytes."""
        total = 0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total

    def close(self) -> None:
        """End it, and wait for its model."""
        tree = self._tree()
        for process in self._all:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._all:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(120)
        for left in tree:
            with contextlib.suppress(psutil.Error):
                left.kill()
        self._log.close()

    def _answers(self) -> list[dict[str, Any]]:
        found = []
        for process in self._all:
            assert process.stdout is not None
            timer = threading.Timer(SILENCE_S, process.kill)
            timer.start()
            line = process.stdout.readline()
            timer.cancel()
            if not line:
                last = Path(self._log.name).read_text(errors="replace")[-2000:]
                raise SystemExit(f"{self.name} has ended; its last words:\n{last}")
            found.append(json.loads(line))
        return found

    def _tree(self) -> list[psutil.Process]:
        found = []
        for process in self._all:
            with contextlib.suppress(psutil.Error):
                parent = psutil.Process(process.pid)
                found += [parent, *parent.children(recursive=True)]
        return found

    def _spent(self) -> float:
        total = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total


def prepare(folder: Path, model: str, rounds: int) -> None:
    """Write the work that everybody takes, with the cohorts and batches that the engine draws."""
    rng = np.random.default_rng(0)
    windows = ours.SITES * ours.WINDOWS
    shape = (1, 64) if model == "ae" else (1, 28, 28)
    np.save(folder / "x.npy", rng.standard_normal((windows, *shape[0 if model == "cnn" else 1 :])).astype(np.float32))
    np.save(folder / "y.npy", np.zeros(0, np.int64) if model == "ae" else rng.integers(0, 10, windows))
    facts = {"model": model, "batch": ours.BATCH, "rate": RATES[model]}
    (folder / "work.json").write_text(json.dumps(facts))
    job = ours.job(model, RATES[model])
    works.write(folder / "start.npz", [value.detach().numpy() for value in job.module().parameters()])
    np.save(folder / "rows.npy", np.zeros((0, 1, 1), np.int64))
    population = ours.population(works.Work(folder))
    rows = []
    for number in range(1, rounds + 1):
        sites = randomness.cohort(job.seed, number, ours.SITES, ours.COHORT)
        parts = [schedule.schedule(job, population, chunk).rows for chunk in schedule.chunks(population, sites, number)]
        rows.append(np.concatenate(parts).reshape(ours.COHORT, ours.WINDOWS))
    np.save(folder / "rows.npy", np.stack(rows))


def contestants(folder: Path, wanted: Sequence[str]) -> list[Contestant]:
    """Start those that are wanted."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    def command(script: str, python: str, name: str, *more: str) -> list[str]:
        return [python, str(HERE / script), str(folder), "--end", str(folder / f"{name}.npz"), *more]

    found = []
    for name in wanted:
        end = folder / f"{name}.npz"
        kind, _, rest = name.partition(" ")
        if kind == "fedsite":
            executor, count = rest.split(" x")
            more = ("--executor", executor, "--workers", count)
            commands = [command("fedsite_peer.py", sys.executable, name, *more)]
        elif kind == "pfl":
            python, count = str(environments.python("pfl")), int(rest.removeprefix("x"))
            commands = [
                command("pfl_peer.py", python, name, "--rank", str(rank), "--of", str(count), "--port", port)
                for rank in range(count)
            ]
        else:
            python, count = str(environments.python("flower")), int(rest.removeprefix("x"))
            commands = [command("flower_peer.py", python, name, "--actors", str(count))]
        found.append(Contestant(name, commands, end))
    return found


def measure(model: str, wanted: Sequence[str], rounds: int) -> dict[str, Any]:
    """Medians by contestant, after two rounds that only warm up; peak memory is looked at in two more."""
    with tempfile.TemporaryDirectory(prefix="fedsite-peers-") as name:
        folder = Path(name)
        prepare(folder, model, rounds + 4)
        everybody = contestants(folder, wanted)
        try:
            first: dict[str, float] = {}
            for one in everybody:
                one.ready()
                first[one.name] = one.round()[0]
                one.round()
            wall: dict[str, list[float]] = {one.name: [] for one in everybody}
            cpu: dict[str, list[float]] = {one.name: [] for one in everybody}
            for number in range(rounds):
                print(f"{model}: round {number + 1} of {rounds}", file=sys.stderr)
                for one in everybody:
                    seconds, used = one.round()
                    wall[one.name].append(seconds)
                    cpu[one.name].append(used)
            peak = {one.name: _peak(one) for one in everybody}
        finally:
            for one in everybody:
                one.close()
        with np.load(folder / "start.npz") as start:
            before = np.concatenate([start[key].ravel() for key in start.files])
        ends = {}
        for one in everybody:
            with np.load(one.end) as model_end:
                ends[one.name] = np.concatenate([model_end[f"p{k}"].ravel() for k in range(len(model_end.files))])
    reference = ends[wanted[0]].astype(np.float64)
    found = {}
    for one_name in wanted:
        off = float(np.linalg.norm(ends[one_name] - reference) / np.linalg.norm(reference - before))
        if off > CLOSE:
            raise SystemExit(f"{one_name} ends {off:.1e} away from {wanted[0]}: these are not the same rounds")
        seconds = statistics.median(wall[one_name])
        found[one_name] = {
            "wall_ms": 1e3 * seconds,
            "cpu_ms": 1e3 * statistics.median(cpu[one_name]),
            "first_s": first[one_name],
            "peak_mb": peak[one_name] / 1e6,
            "gflops": FLOP[model] / statistics.median(cpu[one_name]) / 1e9,
            "off": off,
        }
    return found


def _peak(one: Contestant) -> int:
    highest, stop = 0, threading.Event()

    def look() -> None:
        nonlocal highest
        while not stop.wait(SAMPLE_S):
            highest = max(highest, one.memory())

    thread = threading.Thread(target=look)
    thread.start()
    one.round()
    one.round()
    stop.set()
    thread.join()
    return max(highest, one.memory())


def peak_gflops() -> float:
    """What one thread's largest matrix product reaches here: the best of some."""
    torch.set_num_threads(1)
    a = torch.randn(1024, 1024)
    best = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return 2 * 1024**3 / best / 1e9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", default=["ae", "cnn"], choices=list(RATES))
    parser.add_argument("--rounds", type=int, default=7)
    everybody = ["fedsite compiled x1", "fedsite compiled x2", "fedsite batched x1", "pfl x1", "pfl x2", "flower x2"]
    parser.add_argument("--who", nargs="+", default=everybody, metavar="NAME", help=", ".join(everybody))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.who == everybody and "cnn" in options.work:
        print("batched has no formulas for cnn and is left out there", file=sys.stderr)
    value: dict[str, Any] = {
        "schema": "fedsite.benchmark/1",
        "benchmark": "simulation_peers",
        "rounds": options.rounds,
        "load": round(os.getloadavg()[0], 2),
        "peak_gflops": peak_gflops(),
        "work": {},
    }
    for work in options.work:
        wanted = [name for name in options.who if work == "ae" or "batched" not in name]
        value["work"][work] = measure(work, wanted, options.rounds)
    print(f"largest matrix product on one thread: {value['peak_gflops']:.0f} GFLOP/s")
    print(f"{'':26}{'wall ms':>10}{'CPU ms':>10}{'x faster':>10}{'GFLOP/s':>10}{'peak MB':>10}{'off':>10}")
    for work, rows in value["work"].items():
        slowest = max(row["wall_ms"] for row in rows.values())
        for name, row in rows.items():
            print(
                f"{work + ' ' + name:26}{row['wall_ms']:10.1f}{row['cpu_ms']:10.1f}{slowest / row['wall_ms']:10.1f}"
                f"{row['gflops']:10.1f}{row['peak_mb']:10.0f}{row['off']:10.0e}"
            )
    if options.json:
        print(json.dumps(value))


if __name__ == "__main__":
    main()
