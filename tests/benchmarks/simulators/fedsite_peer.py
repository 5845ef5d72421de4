"""The vectorised engine as a contestant: its own rounds, FedAvg, any executor, any number of workers.

    python fedsite_peer.py FOLDER --end FILE [--executor auto] [--workers 1]

It draws cohorts and batches by itself; `prepare` writes the same ones into the folder for the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from works import Clock, Work, waited, write

from fedsite.protocol.plan import LocalPlan, ModelPlan
from fedsite.simulations import engine
from fedsite.simulations.vectorised.job import Epochs, Job, Layout
from fedsite.simulations.vectorised.population import Population

WINDOWS, SITES, COHORT, BATCH = 50, 1000, 100, 10


def job(model: str, rate: float) -> Job:
    """Of a work, by name."""
    same: dict[str, Any] = {
        "local": LocalPlan(steps=WINDOWS // BATCH, sampling_rate=BATCH / WINDOWS, learning_rate=rate),
        "epochs": Epochs(batch=BATCH),
    }
    if model == "ae":
        options = {"hidden": [192], "code": 64, "activation": "relu"}
        plan = ModelPlan(name="autoencoder", options=options)
        return Job(model=plan, time=1, features=64, outputs=1, loss="reconstruction", **same)
    plan = ModelPlan(name="cnn2d", options={"channels": [16, 32], "stride": 1, "pool": 2, "hidden": [128]})
    return Job(model=plan, time=28, features=28, outputs=10, loss="cross_entropy", **same)


def population(work: Work) -> Population:
    """Every site's windows, as the folder has them."""
    return Population(
        x=np.ascontiguousarray(work.x.reshape(len(work.x), *((1, 64) if work.model == "ae" else (28, 28)))),
        y=np.asarray(work.y),
        offsets=np.arange(SITES + 1) * WINDOWS,
        entity=np.zeros(len(work.x), np.int64),
    )


def main() -> None:
    """Run until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--end", type=Path, required=True)
    parser.add_argument("--executor", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock, work = Clock(), Work(options.folder)
    from fedsite.server.strategies.fedavg import FedAvg

    what = job(work.model, work.rate)
    names = Layout.of(what.module()).names
    initial = dict(zip(names, work.start, strict=True))

    def tell(_done: engine.Round) -> None:
        clock.stop()
        if not waited():
            raise EOFError
        clock.start()

    scale = engine.Scale(rounds=len(work.rows) + 1, cohort=COHORT, workers=options.workers, executor=options.executor)
    clock.say({"ready": True})
    if not waited():
        return
    clock.start()
    last: dict[str, Any] = {}

    class Watched(FedAvg):
        """Keeps the newest model for the comparison at the end."""

        def apply(self, state: Any, aggregate: Any) -> Any:
            found = super().apply(state, aggregate)
            last.update(found.params)
            return found

    try:
        engine.simulate(what, population(work), Watched(), scale, initial=initial, tell=tell)
    except EOFError:
        write(options.end, [np.asarray(last[name]) for name in names])


if __name__ == "__main__":
    main()
