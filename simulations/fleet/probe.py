"""How fast this machine trains a plan's model as a real site does: production's own step, on random windows.

Models differ a hundredfold in what a window costs. So a demo is kept as the speed of its sites over that of the same
training alone in one process, and the speed of another plan is that of its own training times this.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from fedsite.client.work import rounds
from fedsite.models import vector
from fedsite.privacy.sampling import SeededSource
from fedsite.protocol.plan import RoundPlan
from fedsite.simulations.vectorised.job import Job
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.statistics import schema_normalisation
from fedsite.telemetry.task import Task, read_task

TIMES = 3
ENTITY = 64  # windows of one entity
MOST = 20_000  # windows of the site that is tried
Clock = Callable[[], float]


def windows_s(plan: RoundPlan, windows: int, *, clock: Clock = time.process_time) -> float:
    """Windows of a round that production trains in a second of one core.

    Args:
        plan: what is trained, and how.
        windows: training windows of the site; of a larger one `MOST` are tried.
        clock: seconds of this process.
    """
    import torch

    data = _random(plan, min(max(windows, 1), MOST))
    weights = vector.state(Job.of(plan).module())
    normalisation = schema_normalisation(data.minimum, data.maximum)
    trained = plan.local.steps * plan.local.sampling_rate * len(data.train)
    threads, least = torch.get_num_threads(), math.inf
    torch.set_num_threads(1)
    try:
        for number in range(1, TIMES + 1):  # the first also prepares
            source = SeededSource((plan.seed, number))
            began = clock()
            rounds.train_round(plan, data, weights, normalisation, False, source, 1, seed=number, simulated=True)
            least = min(least, clock() - began)
    finally:
        torch.set_num_threads(threads)
    return trained / max(least, 1e-9)


def _random(plan: RoundPlan, count: int) -> SiteData:
    """Windows within the schema's ranges, with labels of the task's kind."""
    task = read_task(plan.task)
    rng = np.random.default_rng(0)
    bounds = np.array(task.feature_bounds, np.float32)
    steps, features = task.input_shape
    x = rng.uniform(bounds[:, 0], bounds[:, 1], (count, steps, features)).astype(np.float32)
    entity = np.arange(count) // ENTITY
    train = Windows(
        x=x,
        y=_labels(task, count, rng),
        entity=entity,
        entities=tuple(str(number) for number in range(int(entity[-1]) + 1)),
        time=np.arange(count, dtype=np.float64),
    )
    return SiteData(
        train=train,
        holdout=train.take(np.arange(0)),
        features=task.feature_names,
        minimum=bounds[:, 0],
        maximum=bounds[:, 1],
        overlap=task.overlap,
    )


def _labels(task: Task, count: int, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
    if task.loss == "mse":
        return rng.uniform(0.0, task.label.scale, count).astype(np.float32)
    classes = max(2, task.outputs) if task.loss == "cross_entropy" else 2
    return rng.integers(0, classes, count)
