"""Job: what every site of a simulation does in a round. Made of the plan that production runs, small enough to send.

Two things differ from production, where only the site itself may know its draws: batches and noise follow the
simulation's seed (randomness.py), and noise is not snapped to a grid. Batches may also be drawn as published
experiments do, in epochs over a shuffled order, where no privacy is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedsite.models import catalog, vector
from fedsite.privacy import mechanisms
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import LocalPlan, ModelPlan, PrivacyPlan, ProtectionPlan, RoundPlan
from fedsite.simulations.vectorised.sums import BOUND
from fedsite.telemetry.task import read_task

if TYPE_CHECKING:
    from torch import nn

Number = TypeVar("Number", np.float32, np.float64)
Weights = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Epochs:
    """Batches in a shuffled order instead of Poisson draws; replaces the plan's steps and sampling rate."""

    batch: int  # windows; the last batch of an epoch may be smaller
    count: int = 1  # epochs in a round

    def __post_init__(self) -> None:
        if self.batch < 1 or self.count < 1:
            raise ConfigError(f"{self.count} epochs of batches of {self.batch}", allowed="at least 1 of each")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Local training at every site, the same for all of them."""

    model: ModelPlan
    time: int  # steps of a window
    features: int
    outputs: int
    loss: str  # a name of models.losses
    local: LocalPlan
    privacy: PrivacyPlan = field(default_factory=PrivacyPlan)
    protection: ProtectionPlan = field(default_factory=lambda: ProtectionPlan(mode="none"))  # how sums are cut
    epochs: Epochs | None = None
    seed: int = 0  # of cohorts, batches and noise

    def __post_init__(self) -> None:
        if self.epochs and self.privacy.sample_level:
            raise ConfigError(
                "epochs with privacy sample",
                allowed="Poisson batches: ε is accounted for them",
                next_step="leave simulation.epochs out, or set privacy=none",
            )

    @classmethod
    def of(cls, plan: RoundPlan, *, epochs: Epochs | None = None) -> Job:
        """What the sites of `plan` do."""
        task = read_task(plan.task)
        time, features = task.input_shape
        return cls(
            model=plan.model,
            time=time,
            features=features,
            outputs=task.outputs,
            loss=task.loss,
            local=plan.local,
            privacy=plan.privacy,
            protection=plan.protection,
            epochs=epochs,
            seed=plan.seed,
        )

    @property
    def private(self) -> bool:
        """Whether every step is clipped and noised."""
        return self.privacy.sample_level

    @property
    def bound(self) -> float:
        """Of one coordinate of an update, on its way to the server: nobody can send more."""
        return self.protection.bound if self.protection.mode == "secagg" else BOUND

    def module(self) -> nn.Module:
        """The model with fresh weights; `requires_grad` says what is trained."""
        module = catalog.build(
            self.model.name,
            self.model.options,
            time=self.time,
            features=self.features,
            outputs=self.outputs,
            seed=self.seed,
        )
        vector.trainable(module, self.model.trainable)
        return module

    def deviation(self, numbers: int) -> float:
        """Of the noise in a step's sum of so many numbers: production's, with its slack for rounding."""
        privacy = self.privacy
        return mechanisms.standard_deviation(mechanisms.summed(privacy.clip, 1), privacy.noise_multiplier, numbers)

    def learning_rate(self, round_number: int) -> float:
        """Of a round, from 1."""
        return self.local.rate(round_number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where each trained parameter lies in one flat vector, in the model's own order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, module: nn.Module) -> Layout:
        """Of the parameters that are trained."""
        found = [(name, tuple(value.shape)) for name, value in module.named_parameters() if value.requires_grad]
        return cls(names=tuple(name for name, _ in found), shapes=tuple(shape for _, shape in found))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Of each parameter."""
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in self.shapes)])
        return tuple(slice(int(start), int(end)) for start, end in pairwise(ends))

    @property
    def size(self) -> int:
        """Numbers in the vector."""
        return int(self.slices[-1].stop)

    def flat(self, weights: Weights) -> NDArray[np.float32]:
        """The vector of the named arrays."""
        return np.concatenate([np.asarray(weights[name], np.float32).reshape(-1) for name in self.names])

    def named(self, flat: NDArray[Number]) -> dict[str, NDArray[Number]]:
        """The inverse: views of `flat`."""
        places = zip(self.names, self.slices, self.shapes, strict=True)
        return {name: flat[part].reshape(shape) for name, part, shape in places}
