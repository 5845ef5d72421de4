"""How good the int8 model is on a site's holdout: what a release is measured by. Never under privacy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsite.client.work import judging
from fedsite.models import metrics
from fedsite.protocol.errors import PolicyError, RefusalCode
from fedsite.protocol.plan import RoundPlan
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.statistics import Normalisation
from fedsite.telemetry.task import read_task


def sums(plan: RoundPlan, data: SiteData, graph: bytes, normalisation: Normalisation) -> dict[str, NDArray[np.generic]]:
    """Metric sums `parity/<name>` of an int8 graph, scored as on a device; the twins of `evaluation/<name>`.

    Raises:
        PolicyError: the run is private: a second evaluation would be a second spend.
        IntegrityError: the graph is not a model of this task.
    """
    if plan.privacy.mode != "none":
        raise PolicyError("a second evaluation of a private holdout", allowed="one", refusal=RefusalCode.PLAN_INVALID)
    from fedsite.models.runtime import Scorer

    task, scorer = read_task(plan.task), Scorer(graph)

    def judged(windows: Windows) -> NDArray[np.floating]:
        return judging.judged(task, windows, scorer.predict(windows.x))

    holdout = judging.scaled(data.holdout, task, normalisation)
    reference = None
    if task.metric.name == "f1_at_threshold":
        reference = judged(judging.scaled(data.train, task, normalisation))
    found = metrics.sums(task.metric, judged(holdout), holdout.y, scale=judging.label_scale(task), reference=reference)
    return {f"parity/{name}": array for name, array in found.items()}
