"""How good the int8 model is on a site's holdout: what a release is measured by. Never under privacy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsite.models import metrics
from fedsite.protocol.errors import PolicyError, RefusalCode
from fedsite.protocol.plan import RoundPlan
from fedsite.telemetry import loading
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
    scale = float(task.label.scale or 1.0)

    def judged(windows: Windows) -> tuple[NDArray[np.floating], Windows]:
        scaled = loading.normalise(windows, normalisation.mean, normalisation.scale, label_scale=scale)
        given = scorer.predict(scaled.x)
        return (metrics.anomaly_score(scaled.x, given) if task.loss == "reconstruction" else given), scaled

    given, holdout = judged(data.holdout)
    reference = judged(data.train)[0] if task.metric.name == "f1_at_threshold" else None
    found = metrics.sums(task.metric, given, holdout.y, scale=scale, reference=reference)
    return {f"parity/{name}": array for name, array in found.items()}
