"""Who trains the shards of a round: this process, alone or with others that map the same data and add up on their own.

Every process keeps one thread for its arithmetic: two of them on a busy machine take seconds where one takes
milliseconds, and a product cut differently rounds differently.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Protocol

from fedsite.protocol.errors import ConfigError, FedsiteError
from fedsite.simulations.vectorised import choice
from fedsite.simulations.vectorised.choice import Chosen
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Job, Layout
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.schedule import Chunk, shards
from fedsite.simulations.vectorised.sums import Sum

ONE_THREAD: Final[Mapping[str, str]] = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
BACKENDS: Final = ("local", "ray")
_executor: Chosen | None = None  # of a worker process
_size = 0


class WorkerLostError(FedsiteError):
    """A worker of a simulation died."""


class Workers(Protocol):
    """Trains the chunks of a round."""

    chosen: Chosen

    def train(self, order: Order, groups: list[list[Chunk]]) -> Iterator[Sum]:
        """The sum of each group's updates, one after the other; the same bits however many workers there are.

        Raises:
            ConfigError: training diverged.
            WorkerLostError: a worker died.
        """


@contextmanager
def started(
    job: Job,
    population: Population,
    count: int,
    wanted: str,
    device: str,
    backend: str = "local",
    trainings: int = 0,
) -> Iterator[Workers]:
    """Workers that are there until the block ends.

    Args:
        job: what sites do.
        population: every site's data.
        count: processes, this one among them, unless they are Ray's.
        wanted: an executor, or "auto".
        device: cpu or cuda.
        backend: "local" for processes of this machine, "ray" for Ray's actors.
        trainings: of sites in the whole run: gradients are compiled for long runs.

    Raises:
        ConfigError: no executor can do the job, no workers are wanted, or Ray is not there.
    """
    if count < 1:
        raise ConfigError(f"simulation.workers is {count}", allowed="at least 1")
    if backend not in BACKENDS:
        raise ConfigError(f"simulation.backend is {backend!r}", allowed=" or ".join(BACKENDS))
    chosen = choice.choose(job, population, wanted, device, trainings)
    if backend == "ray":
        from fedsite.simulations.vectorised import ray_workers

        with ray_workers.started(job, population, count, chosen, device) as crew:
            yield crew
        return
    if count == 1:
        with _single_thread():
            yield _Here(job, chosen)
        return
    with mapped(population) as folder, environment(ONE_THREAD):
        # The parent's choice by name: a worker that could not follow it would otherwise compute something else.
        arguments = (job, folder, chosen.executor.name, device)
        others = ProcessPoolExecutor(count - 1, get_context("spawn"), _begin, arguments)
        with _single_thread(), others as pool:
            yield _Shared(pool, job, population, count, chosen)


class _Here:
    def __init__(self, job: Job, chosen: Chosen) -> None:
        self.chosen = chosen
        self._size = Layout.of(job.module()).size

    def train(self, order: Order, groups: list[list[Chunk]]) -> Iterator[Sum]:
        for chunks in groups:
            yield summed(self.chosen, self._size, order, chunks)


class _Shared:
    """This process and others: it does a shard itself instead of waiting for theirs."""

    def __init__(self, pool: ProcessPoolExecutor, job: Job, population: Population, count: int, chosen: Chosen) -> None:
        self.chosen = chosen
        self._pool = pool
        self._population = population
        self._count = count
        self._size = Layout.of(job.module()).size

    def train(self, order: Order, groups: list[list[Chunk]]) -> Iterator[Sum]:
        waiting: deque[tuple[list[Chunk], list[Future[Sum]]]] = deque()
        for chunks in groups:
            # Few groups in flight: their sums are as large as the model each.
            if len(waiting) > 2 * self._count:
                yield self._joined(order, *waiting.popleft())
            own, *rest = shards(self._population, chunks, self._count)
            waiting.append((own, [self._pool.submit(_work, order, shard) for shard in rest if shard]))
        while waiting:
            yield self._joined(order, *waiting.popleft())

    def _joined(self, order: Order, own: list[Chunk], asked: list[Future[Sum]]) -> Sum:
        found = summed(self.chosen, self._size, order, own)
        try:
            for other in asked:
                found.add(other.result())
        except BrokenProcessPool as error:
            raise lost("a worker", error) from None
        return found


def lost(who: str, error: Exception) -> WorkerLostError:
    """What is raised when a worker has died."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return WorkerLostError(
        f"{who} of the simulation died ({reason[-1].strip():.300})",
        allowed="memory for a model and a chunk of sites in every worker",
        next_step="fewer simulation.workers, or a smaller model; with RAY_ADDRESS also: ray status",
    )


@contextmanager
def mapped(population: Population) -> Iterator[Path]:
    """A folder that other processes can map the population from."""
    if population.folder:
        yield population.folder
        return
    with tempfile.TemporaryDirectory(prefix="fedsite-population-") as folder:
        population.save(Path(folder))
        yield Path(folder)


def _begin(job: Job, folder: Path, wanted: str, device: str) -> None:
    """In a new worker process: map the data, make the executor."""
    global _executor, _size
    import torch

    torch.set_num_threads(1)
    _executor = choice.choose(job, Population.open(folder), wanted, device)
    _size = Layout.of(job.module()).size


def _work(order: Order, chunks: list[Chunk]) -> Sum:
    assert _executor is not None
    return summed(_executor, _size, order, chunks)


def summed(chosen: Chosen, size: int, order: Order, chunks: list[Chunk]) -> Sum:
    """Train chunks one after the other, here; one whose sites stay apart comes by itself.

    Raises:
        ConfigError: training diverged.
    """
    total = empty(size, chunks)
    for chunk in chunks:
        chosen.executor.update(order, chunk, total)
        chosen.population.forget()
    return total


def empty(size: int, chunks: list[Chunk]) -> Sum:
    """Of nothing yet; with a row for each site of a chunk whose sites stay apart."""
    return Sum.empty(size, len(chunks[0].sites) if chunks and chunks[0].apart else None)


@contextmanager
def _single_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """What processes started inside the block inherit: libraries read it when they are loaded."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
