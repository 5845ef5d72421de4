"""Processes and Ray's actors give the bits of one process, are missed when they die, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from fedsite.protocol.errors import ConfigError, UnreachableError
from fedsite.server.strategies.fedavg import FedAvg
from fedsite.server.strategies.median import Median
from fedsite.server.strategies.strategy import Strategy
from fedsite.simulations.engine import Scale, Simulated, simulate
from fedsite.simulations.vectorised import choice, ray_cluster, ray_workers, schedule, workers
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.workers import WorkerLostError
from tests.simulated_jobs import PRIVATE, job, population, weights

WORK = job(privacy=PRIVATE, local={"momentum": 0.5})
SIZES = tuple(range(3, 53))


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go, which are all gone in the end; so is every process of Ray's."""
    pytest.importorskip("ray", reason="the backend needs Ray: pip install 'fedsite[sim]'")
    # Short: a path of pytest's would leave no room for the names of sockets.
    found = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(found))
    monkeypatch.setattr(tempfile, "tempdir", str(found))
    monkeypatch.delenv(ray_cluster.ADDRESS, raising=False)
    try:
        yield found
        # The local pool's tracker of resources stays, as it does for everybody.
        left = [one for one in psutil.Process().children(recursive=True) if alive(one)]
        assert not [one for one in left if "ray" in one.cmdline()[0]]
        assert not list(found.glob("fedsite-*"))
    finally:
        shutil.rmtree(found)


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def run(count: int, backend: str, people: Population, strategy: Strategy | None = None) -> Simulated:
    scale = Scale(rounds=2, cohort=45, workers=count, executor="batched", backend=backend)
    return simulate(WORK, people, strategy or FedAvg(), scale)


def test_backends_and_their_absence_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ray_cluster.ADDRESS, raising=False)
    with pytest.raises(ConfigError, match=r"simulation.backend is 'dask'"):
        run(2, "dask", population("value"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"not installed; .*fedsite\[sim\]"):
        run(2, "ray", population("value"))


@pytest.mark.slow  # importing Ray
@pytest.mark.usefixtures("place")
def test_a_cluster_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv(ray_cluster.ADDRESS, address)
    with pytest.raises(UnreachableError, match=f"no Ray cluster at RAY_ADDRESS={address}"):
        run(2, "ray", population("value"))


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_any_number_of_workers_gives_the_same_bits() -> None:
    people = population("value", SIZES)
    runs = [run(1, "local", people), run(2, "local", people), run(3, "local", people)]
    runs += [run(count, "ray", people) for count in (1, 2)]
    assert len({found.digest for found in runs}) == 1
    assert [found.rounds[0].sites for found in runs] == [45] * 5
    # Updates that are compared one by one come back as rows.
    apart = [run(2, backend, people, Median()) for backend in ("local", "ray")]
    assert apart[0].digest == apart[1].digest != runs[0].digest


def test_a_process_that_dies_is_told() -> None:
    people = population("value", SIZES)
    with workers.started(WORK, people, 2, "batched", "cpu") as crew:
        cut = [schedule.chunks(people, np.arange(45), 1)]
        list(crew.train(Order(weights=weights(WORK)), cut))
        for one in psutil.Process().children(recursive=True):
            if "spawn_main" in " ".join(one.cmdline()):
                one.kill()
        with pytest.raises(WorkerLostError, match=r"a worker of the simulation died .*fewer simulation.workers"):
            list(crew.train(Order(weights=weights(WORK)), cut))


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_a_worker_that_dies_is_replaced_once_and_errors_of_a_shard_are_ours() -> None:
    people = population("value", SIZES)
    chosen = choice.choose(WORK, people, "batched")
    cut = [schedule.chunks(people, np.arange(45), 1)]
    wild = job(local={"learning_rate": 1000.0, "steps": 40})
    order = Order(weights=weights(WORK))
    with ray_workers.started(WORK, people, 2, chosen, "cpu") as crew:
        (wanted,) = crew.train(order, cut)
        victim = next(one for one in psutil.Process().children(recursive=True) if one.name().startswith("ray::Actor"))
        victim.kill()
        (found,) = crew.train(order, cut)
        assert np.array_equal(wanted.total, found.total)
        for one in psutil.Process().children(recursive=True):
            if one.name().startswith("ray::Actor"):
                one.kill()
        held = Order(weights=weights(WORK), control=np.zeros(len(found.total), np.float32))
        with pytest.raises(WorkerLostError, match=r"worker \d of the simulation died .*fewer simulation.workers"):
            list(crew.train(held, cut))
    with (
        ray_workers.started(wild, people, 1, choice.choose(wild, people, "batched"), "cpu") as crew,
        pytest.raises(ConfigError, match="diverged in round 1"),
    ):
        list(crew.train(order, cut))


@pytest.mark.slow
def test_an_interrupt_leaves_nothing_behind(place: Path, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "from fedsite.server.strategies.fedavg import FedAvg\n"
        "from fedsite.simulations.engine import Scale, simulate\n"
        "from tests.simulated_jobs import job, population\n"
        "scale = Scale(rounds=10**6, cohort=50, workers=2, executor='batched', backend='ray')\n"
        "simulate(job(), population('value', tuple(range(3, 53))), FedAvg(), scale,\n"
        "         tell=lambda done: print(done.number, flush=True))\n"
    )
    # A group of its own, as a terminal makes one: Ctrl-C reaches everybody in it.
    running = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert running.stdout is not None
    assert running.stdout.readline() == "1\n"
    started = psutil.Process(running.pid).children(recursive=True)
    assert any(one.name().startswith("ray::Actor") for one in started)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    until = time.monotonic() + 10
    while any(alive(one) for one in started) and time.monotonic() < until:
        time.sleep(0.2)
    assert not [one for one in started if alive(one)]
    assert not list(place.glob("fedsite-*"))


@pytest.mark.slow
def test_an_existing_cluster_of_two_nodes_is_joined(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the second node the population is a copy that goes when the run is over; the cluster stays."""
    people = population("value", SIZES)
    script = (
        "from ray.cluster_utils import Cluster\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'object_store_memory': 100 << 20})\n"
        "cluster.add_node(num_cpus=1, object_store_memory=100 << 20)\n"
        "cluster.wait_for_nodes()\n"
        "print(cluster.address, flush=True)\n"
        "input()\n"
        "cluster.shutdown()\n"
    )
    cluster = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    try:
        assert cluster.stdout is not None
        address = next(line for line in cluster.stdout if line[0].isdigit()).strip()
        monkeypatch.setenv(ray_cluster.ADDRESS, address)
        assert run(2, "ray", people).digest == run(1, "local", people).digest
        with pytest.raises(ConfigError, match="workers is 3 on a Ray cluster with 2 CPUs"):
            run(3, "ray", people)
        assert not list(place.glob("fedsite-*"))
    finally:
        cluster.communicate("\n", timeout=60)
