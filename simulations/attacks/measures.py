"""What an attack did to a model: how often it gets its way, and what becomes of each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsite.client.work import rounds as work
from fedsite.client.work.judging import predict, scaled
from fedsite.models import vector
from fedsite.protocol import shape
from fedsite.protocol.plan import RoundPlan
from fedsite.simulations.attacks import spec as kinds
from fedsite.simulations.attacks.poison import check_labels, triggered
from fedsite.simulations.attacks.spec import AttackSpec
from fedsite.simulations.populations.sites import Sites
from fedsite.simulations.runs import baselines
from fedsite.simulations.vectorised.job import Weights
from fedsite.telemetry.dataset import SiteData
from fedsite.telemetry.statistics import Normalisation
from fedsite.telemetry.task import read_task


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """An attacked model on everybody's holdout."""

    success: float | None  # share of what was attacked that went the attacker's way; None where nothing is aimed at
    classes: tuple[float | None, ...]  # share of each class that is recognised; empty where labels are values

    @property
    def plain(self) -> dict[str, Any]:
        """JSON value."""
        found: dict[str, Any] = shape.plain(self)
        return found


class Measure:
    """Calls of it are pure: a model's weights to what the attack did to it.

    Success of a label flip: the share of the attacked classes' windows (of all but the target, where all are attacked)
    that the model puts into the target class; of a backdoor the same for windows with the trigger. Where labels are
    values: how far of the way from its unattacked window to the target a backdoor moves the prediction, on average.
    """

    def __init__(
        self, plan: RoundPlan, sites: Mapping[str, SiteData], normalisation: Normalisation, spec: AttackSpec
    ) -> None:
        """Scale the holdouts once.

        Raises:
            ConfigError: the attack does not fit the task's labels or windows.
        """
        task = read_task(plan.task)
        together = sites.joined() if isinstance(sites, Sites) else baselines.pool(list(sites.values()))
        windows = scaled(together.holdout, task, normalisation)
        self._module = work.build(plan, task)
        self._spec = spec
        self._x, self._y = windows.x, windows.y
        self._outputs = task.outputs if task.loss == "cross_entropy" else 0
        self._aimed = spec.kind in (kinds.LABEL_FLIP, kinds.BACKDOOR)
        if self._aimed:
            check_labels(windows.y, spec)
        self._marked = triggered(windows.x, spec.trigger) if spec.kind == kinds.BACKDOOR else windows.x

    def __call__(self, weights: Weights) -> Measured:
        """On all holdouts together."""
        vector.load(self._module, weights)
        honest = predict(self._module, self._x)
        attacked = predict(self._module, self._marked) if self._spec.kind == kinds.BACKDOOR else honest
        if not self._outputs:
            return Measured(success=self._moved(honest, attacked) if self._aimed else None, classes=())
        right = honest.argmax(1) == self._y
        classes = tuple(_share(right[self._y == number]) for number in range(self._outputs))
        return Measured(success=self._taken(attacked.argmax(1)) if self._aimed else None, classes=classes)

    def _taken(self, said: NDArray[np.int64]) -> float | None:
        every = self._spec.source == kinds.EVERY
        attacked = self._y != int(self._spec.target) if every else self._y == self._spec.source
        return _share(said[attacked] == int(self._spec.target))

    def _moved(self, honest: NDArray[np.float32], attacked: NDArray[np.float32]) -> float | None:
        if self._spec.kind != kinds.BACKDOOR:
            return None
        way = self._spec.target - honest
        far = np.abs(way) > 1e-6
        return float(np.mean((attacked - honest)[far] / way[far])) if far.any() else None


def _share(hits: NDArray[np.bool_]) -> float | None:
    return float(hits.mean()) if len(hits) else None
