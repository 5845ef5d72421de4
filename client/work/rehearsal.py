"""A first round on nothing, so that the real one does not wait for imports: the worker runs it while nobody waits.

Optimizers, hooks for per-example gradients and metrics are imported and compiled where they are first used, which took
the first round of a cold worker a second. The windows are zeros; nothing of the site's data is read, and nothing that
comes out is kept.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fedsite.protocol.plan import RoundPlan
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.statistics import Normalisation
from fedsite.telemetry.task import Task, read_task

_WINDOWS = 2


def rehearse(plan: RoundPlan, data: SiteData) -> None:
    """Take one training step, and evaluate, as `plan` says, on windows shaped like `data`.

    Raises:
        Whatever the real round would raise.
    """
    from fedsite.client.work import rounds as work
    from fedsite.models import vector
    from fedsite.privacy import sampling

    task: Task = read_task(plan.task)
    small = dataclasses.replace(plan, local=dataclasses.replace(plan.local, steps=1, sampling_rate=1.0))
    features = len(data.features)
    work.train_round(
        small,
        dataclasses.replace(data, train=_zeros(data.train), holdout=_zeros(data.train)),
        vector.state(work.build(plan, task)),
        Normalisation(mean=np.zeros(features, np.float32), scale=np.ones(features, np.float32)),
        True,
        sampling.SystemRandom(),
        1,
    )


def _zeros(like: Windows) -> Windows:
    return Windows(
        x=np.zeros((_WINDOWS, *like.x.shape[1:]), np.float32),
        y=np.zeros((_WINDOWS, *like.y.shape[1:]), like.y.dtype),
        entity=np.arange(_WINDOWS),
        entities=tuple(str(number) for number in range(_WINDOWS)),
        time=np.zeros(_WINDOWS),
    )
