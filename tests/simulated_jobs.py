"""Small jobs and populations that the tests of the vectorised engine share."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.plan import LocalPlan, ModelPlan, PrivacyPlan, ProtectionPlan, SitePrivacyPlan
from fedsite.simulations.vectorised import randomness
from fedsite.simulations.vectorised.job import Epochs, Job, Weights
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.randomness import Purpose

TIME, FEATURES = 2, 3
PRIVATE = PrivacyPlan(mode="sample", clip=0.5, batch=3.0, noise_multiplier=0.7)
ENTITY = PrivacyPlan(mode="sample", clip=0.5, batch=3.0, noise_multiplier=0.7, unit="entity")

SUMS = PrivacyPlan(mode="site", site=SitePrivacyPlan(clip=0.3, noise_multiplier=0.8))
BOTH = PrivacyPlan(mode="both", clip=0.5, batch=3.0, noise_multiplier=0.7, site=SUMS.site)


def population(target: str, sizes: tuple[int, ...] = (17, 5, 29, 12, 20)) -> Population:
    """Sites of these many random windows; `target` is class, value or event."""
    rng = np.random.default_rng(7)
    total = sum(sizes)
    targets: dict[str, Any] = {
        "class": rng.integers(0, 4, total),
        "value": rng.standard_normal((total, 2)).astype(np.float32),
        "event": rng.integers(0, 2, (total, 1)).astype(np.float32),
    }
    return Population(
        x=rng.standard_normal((total, TIME, FEATURES)).astype(np.float32),
        y=targets[target],
        offsets=np.cumsum([0, *sizes]),
        entity=rng.integers(0, 4, total),
    )


def job(
    loss: str = "mse",
    model: str = "mlp",
    options: dict[str, Any] | None = None,
    *,
    local: dict[str, Any] | None = None,
    privacy: PrivacyPlan | None = None,
    trainable: str = "all",
    epochs: Epochs | None = None,
) -> Job:
    """A few steps of a small model."""
    wanted: dict[str, Any] = {"steps": 4, "sampling_rate": 0.15, "learning_rate": 0.1} | (local or {})
    outputs = {"cross_entropy": 4, "binary_cross_entropy": 1}.get(loss, 2)
    return Job(
        model=ModelPlan(name=model, options={"hidden": [5]} if options is None else options, trainable=trainable),
        time=TIME,
        features=FEATURES,
        outputs=outputs,
        loss=loss,
        local=LocalPlan(**wanted),
        privacy=privacy or PrivacyPlan(),
        epochs=epochs,
        seed=3,
    )


def secured(privacy: PrivacyPlan = SUMS, *, groups: int = 1, **options: Any) -> Job:
    """The same under secure aggregation, with noise in the sums."""
    return dataclasses.replace(job(privacy=privacy, **options), protection=ProtectionPlan(groups=groups))


class Drawn:
    """The simulation's draws in the order that a real site asks for them."""

    seeded = True

    def __init__(self, seed: int, round_number: int, site: int) -> None:
        self._seed, self._counters = seed, (round_number, site)
        self._batches = self._noises = -1

    def bits(self, n: int) -> NDArray[np.uint64]:
        self._batches += 1
        return randomness.bits(randomness.key(self._seed, Purpose.BATCH, *self._counters, self._batches), n)[0]

    def uniform(self, n: int) -> NDArray[np.float64]:
        raise NotImplementedError

    def normal(self, n: int) -> NDArray[np.float64]:
        self._noises += 1
        key = randomness.key(self._seed, Purpose.NOISE, *self._counters, self._noises)
        return randomness.normal(key, n)[0].astype(np.float64)


def weights(job: Job) -> Weights:
    """The job's initial ones."""
    return {name: value.detach().numpy() for name, value in job.module().state_dict().items()}
