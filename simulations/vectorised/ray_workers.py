"""Workers on Ray: an actor for each core or GPU, of one machine or of many, takes a shard of a round per call.

The model goes into the object store once a round and to every node once. On this node actors map the population from
the same files; to any other node it travels once, through the object store into files that its actors map. A sum in
integers comes back from each shard: the bits are those of one process, whoever did the work.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.vectorised import choice, ray_cluster, workers
from fedsite.simulations.vectorised.choice import Chosen
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Job, Layout
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.schedule import Chunk, shards
from fedsite.simulations.vectorised.sums import Sum
from fedsite.simulations.vectorised.workers import lost

_IN_FLIGHT: Final = 2  # groups of a round that are asked for ahead, for each actor: each has a sum as large as a model

_log = logging.getLogger(__name__)


@contextmanager
def started(job: Job, population: Population, count: int, chosen: Chosen, device: str) -> Iterator[workers.Workers]:
    """Actors that are there until the block ends; nothing that was started here outlives it.

    Args:
        job: what sites do.
        population: every site's data.
        count: actors.
        chosen: the parent's executor; actors take the one of its name.
        device: cpu or cuda.

    Raises:
        ConfigError: Ray is not installed, or the cluster has too few CPUs or GPUs.
        UnreachableError: there is no cluster at RAY_ADDRESS.
        WorkerLostError: an actor died before it had begun.
    """
    size = Layout.of(job.module()).size
    room = 8 * size * (_IN_FLIGHT + 2) * (count + 1)  # a sum has 8 bytes for each number of the model
    with (
        workers.mapped(population) as folder,
        workers.environment(workers.ONE_THREAD),
        ray_cluster.running(cpus=count, gpus=_gpus(device), store_bytes=room),
    ):
        crew = _Crew(job, population, folder, chosen, device)
        try:
            crew.hire(count)
            yield crew
        finally:
            crew.dismiss()


class _Crew:
    def __init__(self, job: Job, population: Population, folder: Path, chosen: Chosen, device: str) -> None:
        import ray

        self.chosen = chosen
        self._ray = ray
        self._population = population
        self._size = Layout.of(job.module()).size
        self._folder = folder
        self._begin = (job, chosen.executor.name, device)
        self._actors: list[Any] = []
        self._sent: Any = None  # the population in the object store, once another node needs it
        self._copies: dict[str, Path] = {}  # folders on other nodes, by node
        self._makers: list[Any] = []  # actors that made them
        self._options: dict[str, Any] = {"num_cpus": 1, "scheduling_strategy": "SPREAD", "max_concurrency": 1}
        self._options["runtime_env"] = {"env_vars": dict(workers.ONE_THREAD)}

    def hire(self, count: int) -> None:
        """Start actors and have each of them map the data.

        Raises:
            ConfigError: there are too few GPUs.
            WorkerLostError: one died.
        """
        if self._begin[2] != "cpu":
            self._options["num_gpus"] = _share(int(self._ray.cluster_resources().get("GPU", 0)), count)
        self._actors = [self._new() for _ in range(count)]
        self._take(self._actors)

    def dismiss(self) -> None:
        """End the actors, and remove the copies that they made."""
        for maker in self._makers:
            try:
                self._ray.get(maker.forget.remote(), timeout=ray_cluster.END_S)
            except Exception as error:
                _log.warning("a copy of the simulated population may be left on another node: %s", error)
        for actor in self._actors:
            self._ray.kill(actor)

    def train(self, order: Order, groups: list[list[Chunk]]) -> Iterator[Sum]:
        """The sum of each group's updates, one after the other; the same bits however many actors there are.

        Raises:
            ConfigError: training diverged, or sites keep control variates and actors are on other nodes.
            WorkerLostError: an actor died twice, or where sites keep something between rounds.
        """
        if order.controls is not None and self._copies:
            raise ConfigError(
                "SCAFFOLD with workers on more than one machine",
                allowed="workers where the sites' control variates are: on this machine",
                next_step=f"simulation.backend=local, or unset {ray_cluster.ADDRESS}",
            )
        sent = self._ray.put(order)
        waiting: deque[list[tuple[int, list[Chunk], Any]]] = deque()
        for number, chunks in enumerate(groups):
            if len(waiting) > _IN_FLIGHT * len(self._actors):
                yield self._joined(order, sent, waiting.popleft())
            waiting.append(self._asked(sent, chunks, number))
        while waiting:
            yield self._joined(order, sent, waiting.popleft())

    def _asked(self, sent: Any, chunks: list[Chunk], number: int) -> list[tuple[int, list[Chunk], Any]]:
        """Who does which shard; groups begin at another actor each, because many are smaller than a shard."""
        found = []
        for place, shard in enumerate(shards(self._population, chunks, len(self._actors))):
            if shard:
                index = (place + number) % len(self._actors)
                found.append((index, shard, self._actors[index].train.remote(sent, shard)))
        return found

    def _joined(self, order: Order, sent: Any, asked: list[tuple[int, list[Chunk], Any]]) -> Sum:
        total = workers.empty(self._size, [chunk for _, shard, _ in asked for chunk in shard])
        for index, shard, future in asked:
            try:
                part = self._got(future)
            except self._dead as error:
                part = self._again(order, sent, index, shard, error)
            total.add(part)
        return total

    def _again(self, order: Order, sent: Any, index: int, shard: list[Chunk], error: Exception) -> Sum:
        """The sum of a shard whose actor died, from one that takes its place."""
        _log.warning("worker %s of the simulation died; its shard is done again", index + 1)
        if order.control is not None:
            # Its sites may have new control variates already: done again, they would train from those.
            raise lost(f"worker {index + 1}", error)
        try:
            # Others may have been asked of the same actor: whoever finds it dead first has replaced it already.
            if not self._lives(self._actors[index]):
                self._actors[index] = self._new()
                self._take([self._actors[index]])
            found: Sum = self._got(self._actors[index].train.remote(sent, shard))
            return found
        except self._dead as second:
            raise lost(f"worker {index + 1}", second) from None

    @property
    def _dead(self) -> tuple[type[Exception], ...]:
        errors = self._ray.exceptions
        return errors.RayActorError, errors.OutOfMemoryError, errors.NodeDiedError, errors.ActorUnavailableError

    def _lives(self, actor: Any) -> bool:
        try:
            self._ray.get(actor.place.remote())
        except self._dead:
            return False
        return True

    def _new(self) -> Any:
        return self._ray.remote(Actor).options(**self._options).remote()

    def _take(self, actors: list[Any]) -> None:
        """Have new actors map the data: the files of this node, or a copy that the first of another node makes."""
        here = self._ray.get_runtime_context().get_node_id()
        try:
            nodes = self._ray.get([actor.place.remote() for actor in actors])
            for actor, node in zip(actors, nodes, strict=True):
                if node != here and node not in self._copies:
                    self._sent = self._ray.put(self._population) if self._sent is None else self._sent
                    self._copies[node] = Path(self._got(actor.unpack.remote(self._sent)))
                    self._makers.append(actor)
            self._got(
                [
                    actor.begin.remote(*self._begin, self._copies.get(node, self._folder))
                    for actor, node in zip(actors, nodes, strict=True)
                ]
            )
        except self._dead as error:
            raise lost("a worker", error) from None

    def _got(self, futures: Any) -> Any:
        """What was asked for; an error of ours as it was raised."""
        try:
            return self._ray.get(futures)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None


class Actor:
    """One worker. Arrays that Ray hands over are read-only and shared: what is computed with is a copy of its own."""

    def __init__(self) -> None:
        self._chosen: Chosen | None = None
        self._size = 0
        self._copy: Path | None = None

    def place(self) -> str:
        """The id of the node it runs on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def unpack(self, population: Population) -> str:
        """Write the population into files of this node; returns their folder."""
        self._copy = Path(tempfile.mkdtemp(prefix="fedsite-population-"))
        population.save(self._copy)
        return str(self._copy)

    def forget(self) -> None:
        """Remove those files."""
        if self._copy is not None:
            shutil.rmtree(self._copy, ignore_errors=True)

    def begin(self, job: Job, wanted: str, device: str, folder: Path) -> int:
        """Map the data and make the executor; returns the process's id."""
        import torch

        torch.set_num_threads(1)
        self._chosen = choice.choose(job, Population.open(folder), wanted, device)
        self._size = Layout.of(job.module()).size
        return os.getpid()

    def train(self, order: Order, chunks: list[Chunk]) -> Sum:
        """The sum of a shard's updates."""
        assert self._chosen is not None
        own = replace(
            order,
            weights={name: np.array(value) for name, value in order.weights.items()},
            control=None if order.control is None else np.array(order.control),
        )
        return workers.summed(self._chosen, self._size, own, [_own(chunk) for chunk in chunks])


def _own(chunk: Chunk) -> Chunk:
    gains = None if chunk.gains is None else np.array(chunk.gains)
    return replace(chunk, sites=np.array(chunk.sites), gains=gains)


def _gpus(device: str) -> int:
    """GPUs of this machine that actors may have."""
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def _share(gpus: int, count: int) -> float:
    """Of a GPU for each actor."""
    if not gpus:
        raise ConfigError(
            "simulation.device is cuda on a Ray cluster without GPUs", allowed="simulation.device=cpu there"
        )
    return min(1.0, int(100 * gpus / count) / 100)
