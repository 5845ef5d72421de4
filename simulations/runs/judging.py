"""The exact metric of a model, on all holdouts together and at each site: the researcher's own, without noise.

Holdouts are scaled once and laid side by side, so that a model is asked once however many sites there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from fedsite.client.work import rounds as work
from fedsite.client.work.judging import judged, label_scale, predict, scaled
from fedsite.models import metrics, vector
from fedsite.privacy.sampling import SystemRandom
from fedsite.protocol.plan import PrivacyPlan, RoundPlan
from fedsite.simulations.populations.sites import Sites
from fedsite.simulations.runs import baselines
from fedsite.simulations.vectorised.job import Weights
from fedsite.telemetry.dataset import SiteData
from fedsite.telemetry.statistics import Normalisation
from fedsite.telemetry.task import read_task

Sums = dict[str, np.ndarray]
_OWN_THRESHOLD = "f1_at_threshold"  # every site's scores are held against its own training windows


class Judge:
    """Calls of it are pure: a model's weights to its metric."""

    def __init__(self, plan: RoundPlan, sites: Mapping[str, SiteData], normalisation: Normalisation) -> None:
        self._plan = dataclasses.replace(plan, privacy=PrivacyPlan())
        self._task = read_task(plan.task)
        self._sites = sites
        self._normalisation = normalisation
        self._module = work.build(plan, self._task)
        if isinstance(sites, Sites):
            together, counts = sites.joined().holdout, sites.holdout.counts
        else:
            together = baselines.pool(list(sites.values())).holdout
            counts = np.array([len(data.holdout) for data in sites.values()])
        self._ends = np.cumsum(counts)
        self._holdout = scaled(together, self._task, normalisation)

    def __call__(self, weights: Weights) -> float | None:
        """On all holdouts together; None where there is nothing to judge."""
        if self._task.metric.name == _OWN_THRESHOLD:
            return metrics.value(self._task.metric, _added(self._one_by_one(weights)))
        given = self._said(weights)
        return metrics.value(self._task.metric, self._sums(given, slice(None)))

    def each(self, weights: Weights) -> list[float | None]:
        """At each site, on its own holdout."""
        if self._task.metric.name == _OWN_THRESHOLD:
            return [metrics.value(self._task.metric, found) for found in self._one_by_one(weights)]
        given, starts = self._said(weights), [0, *self._ends[:-1].tolist()]
        return [
            metrics.value(self._task.metric, self._sums(given, slice(start, end))) if end > start else None
            for start, end in zip(starts, self._ends.tolist(), strict=True)
        ]

    def _said(self, weights: Weights) -> np.ndarray:
        vector.load(self._module, weights)
        return judged(self._task, self._holdout, predict(self._module, self._holdout.x))

    def _sums(self, given: np.ndarray, part: slice) -> Sums:
        return metrics.sums(self._task.metric, given[part], self._holdout.y[part], scale=label_scale(self._task))

    def _one_by_one(self, weights: Weights) -> list[Sums]:
        found = []
        for data in self._sites.values():
            values = work.evaluate(self._plan, data, weights, self._normalisation, SystemRandom())
            found.append({name.removeprefix("evaluation/"): np.asarray(array) for name, array in values.items()})
        return found


def _added(parts: list[Sums]) -> Sums:
    return {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]} if parts else {}
