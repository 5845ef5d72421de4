"""What the worker does when asked: each operation reads a plan, checks it, and only then reads the site's data.

Values that come back are complete: clipped, noised and named as they will be sent (rounds.py); nothing of the data
itself ever crosses the pipe to the agent.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fedsite.client import data as site_data
from fedsite.client.ledger import prices
from fedsite.client.ledger.budget_entries import from_values
from fedsite.client.work import given, noise, pipe, protect
from fedsite.client.work.control import VARIATE, Control
from fedsite.client.work.worker import Operation
from fedsite.privacy.sampling import Source
from fedsite.protocol import weights
from fedsite.protocol.errors import DataError, PolicyError, RefusalCode
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.telemetry.dataset import SiteData
from fedsite.telemetry.errors import CHECK, TelemetryError
from fedsite.telemetry.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What takes the place of a site's own data and randomness in a simulation. No real site makes one."""

    data: SiteData
    source: Callable[[str, int, bool], Source]  # of an operation, in a round, that judges a model before it trains


class Operations:
    """The operations, and the one data set that stays loaded while the worker is warm."""

    def __init__(self, simulated: Simulated | None = None) -> None:
        """`simulated`: in the place of this site's data and the operating system's randomness; in simulations only."""
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
        self._simulated = simulated
        self._key: tuple[Any, ...] = ()
        self._data: SiteData | None = None
        self._covered = b""  # of `_data`, as JSON; empty: not asked for yet
        self._pending: Callable[[], None] | None = None

    def rest(self) -> None:
        """Do what was put off until nobody waits."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending()

    def table(self) -> dict[str, Operation]:
        """The operations by name."""
        return {
            "cost": self.cost,
            "prepare": self.prepare,
            "coverage": self.coverage,
            "statistics": self.statistics,
            "train": self.train,
            "evaluate": self.evaluate,
            "calibrate": self.calibrate,
        }

    def cost(self, arguments: Mapping[str, Any], blobs: Mapping[str, bytes]) -> pipe.Message:
        """What a run would cost one unit, and ε of that with everything spent before; reads no data.

        Arguments: `unit`, `spent` ([noise, rate, steps] each), `of_task` (what runs of the same task have spent of
        that, or None), `delta`; blob `plan`. `run`, `round` (one of training, with its evaluation), `epsilon` (with
        what was spent) and `task` (with what its task spent) are at `delta`, `claim` is at the plan's own.
        """
        plan, unit = given.plan(blobs["plan"]), str(arguments["unit"])
        delta, of_task = float(arguments["delta"]), arguments.get("of_task")
        return pipe.Message(
            header=prices.cost(
                plan,
                unit,
                delta=delta,
                spent=from_values(arguments["spent"]),
                of_task=None if of_task is None else from_values(of_task),
            )
        )

    def prepare(self, arguments: Mapping[str, Any], blobs: Mapping[str, bytes]) -> pipe.Message:
        """Check that the model can be built and the data meets the contract; nothing of the data leaves."""
        from fedsite.client.work import rehearsal
        from fedsite.client.work import rounds as work

        plan = given.plan(blobs["plan"])
        task = given.task(plan)
        work.build(plan, task)
        data = self._check(task, arguments)
        units = _units(plan, data)
        if plan.privacy.sample_level and plan.privacy.delta * units >= 1:
            raise PolicyError(
                f"delta is {plan.privacy.delta} for {units} privacy units at this site",
                allowed="below 1 / units",
                refusal=RefusalCode.PLAN_INVALID,
            )
        self._pending = partial(rehearsal.rehearse, plan, data)
        return pipe.Message(header={}, blobs=self._coverage(plan, task))

    def coverage(self, arguments: Mapping[str, Any], blobs: Mapping[str, bytes]) -> pipe.Message:
        """Whose records the data holds, for the site's own budget; before a calibration, which is checked first."""
        plan = given.plan(blobs["plan"])
        task = given.task(plan)
        if "graph" in blobs:
            given.calibration(task, arguments, blobs["graph"])
        self._load(task, arguments)
        return pipe.Message(header={}, blobs=self._coverage(plan, task))

    def statistics(self, arguments: Mapping[str, Any], blobs: Mapping[str, bytes]) -> pipe.Message:
        """The normalisation sums over the training windows."""
        from fedsite.client.work import rounds as work

        plan = given.plan(blobs["plan"])
        task = given.task(plan)
        source, simulated = self._source("statistics", arguments)
        values = work.statistics(plan, self._load(task, arguments), source, simulated=simulated)
        return _answer(values, blobs, source, self._coverage(plan, task))

    def train(self, arguments: Mapping[str, Any], blobs: Mapping[str, bytes]) -> pipe.Message:
        """One round of local training, with an evaluation of the incoming model before it when asked."""
        from fedsite.client.work import rounds as work

        plan, task, model, trained = given.checked(blobs)
        control = Control.read(blobs, trained) if plan.strategy.control else None
        scale = given.normalisation(task, arguments)
        data = self._load(task, arguments)
        evaluate = bool(arguments.get("evaluate"))
        number = int(arguments["round"])
        source, simulated = self._source("train", arguments)
        correction = None if control is None else control.correction
        values = work.train_round(
            plan, data, model, scale, evaluate, source, number, simulated=simulated, correction=correction
        )
        kept = {} if control is None else {VARIATE: control.after(plan, values, number)}
        return _answer(values, blobs, source, self._coverage(plan, task) | kept)

    def evaluate(self, arguments: Mapping[str, Any], blobs: Mapping[str, bytes]) -> pipe.Message:
        """Metric sums of a model on the holdout, and of its int8 graph where one travels along."""
        from fedsite.client.work import parity
        from fedsite.client.work import rounds as work
        from fedsite.models import onnx_limits

        plan, task, model, _ = given.checked(blobs)
        if "graph" in blobs:
            onnx_limits.check(blobs["graph"])
        scale = given.normalisation(task, arguments)
        data = self._load(task, arguments)
        source, simulated = self._source("evaluate", arguments)
        values = work.evaluate(plan, data, model, scale, source, simulated=simulated)
        if "graph" in blobs:
            values |= parity.sums(plan, data, blobs["graph"], scale)
        return _answer(values, blobs, source, self._coverage(plan, task))

    def calibrate(self, arguments: Mapping[str, Any], blobs: Mapping[str, bytes]) -> pipe.Message:
        """Histograms of activations for the int8 ranges."""
        from fedsite.client.work import rounds as work

        plan = given.plan(blobs["plan"])
        task = given.task(plan)
        scale, tensors = given.calibration(task, arguments, blobs["graph"])
        data = self._load(task, arguments)
        source, simulated = self._source("calibrate", arguments)
        values = work.calibrate(plan, data, blobs["graph"], scale, tensors, source, simulated=simulated)
        return _answer(values, blobs, source, self._coverage(plan, task))

    def _check(self, task: Task, arguments: Mapping[str, Any]) -> SiteData:
        """Read the data, and refuse what breaks the task's contract: a wrong unit would be learned from otherwise.

        Raises:
            TelemetryError: the first error that `fedsite data check` tells.
        """
        from fedsite.telemetry import contract

        if self._simulated is not None:
            return self._load(task, arguments)
        where = site_data.from_plain(arguments["location"])
        key = site_data.key(task, where)
        self._data = None
        checked = contract.inspect(task, where, now=time.time())
        if checked.data is None:
            first = checked.findings[0]
            error = TelemetryError(
                first.text, allowed=first.allowed, next_step=f"{first.remedy}; {CHECK}", code=first.code
            )
            error.broken = contract.codes(checked.findings)
            raise error
        self._data, self._key, self._covered = checked.data, key, b""
        return checked.data

    def _load(self, task: Task, arguments: Mapping[str, Any]) -> SiteData:
        from fedsite.telemetry import loading

        if self._simulated is not None:
            self._data = self._simulated.data
            return self._data
        where = site_data.from_plain(arguments["location"])
        key = site_data.key(task, where)
        if self._data is None or key != self._key:
            self._data = None  # the old windows go before the new ones come
            self._data = loading.load_site(task, where)
            self._key, self._covered = key, b""
        return self._data

    def _source(self, operation: str, arguments: Mapping[str, Any]) -> tuple[Source, bool]:
        """The operating system's randomness; a simulation's own, and that it is simulated, where this is one."""
        from fedsite.privacy import sampling

        if self._simulated is None:
            return sampling.SystemRandom(), False
        number, evaluate = int(arguments.get("round") or 0), bool(arguments.get("evaluate"))
        return self._simulated.source(operation, number, evaluate), True

    def _coverage(self, plan: RoundPlan, task: Task) -> dict[str, bytes]:
        """Whose records the loaded data holds: asked of private runs alone, and never sent on by the agent."""
        from fedsite.telemetry import coverage

        if plan.privacy.mode == "none" or self._data is None:
            return {}
        self._covered = self._covered or json.dumps(coverage.plain(coverage.coverage(task, self._data))).encode()
        return {"coverage": self._covered}


def _units(plan: RoundPlan, data: SiteData) -> int:
    """Privacy units in the training part.

    Raises:
        DataError: there are none.
    """
    units = len(data.train) if plan.privacy.unit == "window" else len(np.unique(data.train.entity))
    if not units:
        raise DataError("no training windows", allowed="at least one", refusal=RefusalCode.TOO_FEW_WINDOWS)
    return units


def _answer(
    values: Mapping[str, np.ndarray], blobs: Mapping[str, bytes], source: Source, beside: Mapping[str, bytes]
) -> pipe.Message:
    """Named arrays, or their vector where a manifest says what is summed, and what only the agent is told."""
    if "manifest" not in blobs:
        return pipe.Message(header={}, blobs={"values": weights.encode(values), **beside})
    manifest = Manifest.parse(blobs["manifest"])
    # A draw for each value, and more where rounding begins anew: a cipher's stream is the quicker one.
    drawn = noise.keystream() if manifest.noise else source
    return pipe.Message(header={}, blobs={"vector": protect.vector(values, manifest, drawn), **beside})
