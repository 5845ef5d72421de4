"""Canaries whose gradients an attacker sees one by one: each pulls along a coordinate of its own, as hard as it may.

The model is one dense layer over as many features as there are canaries, the i-th canary a window with feature i alone.
Whatever the weights, its gradient then lies on weight i, and clipping makes it as long as the norm allows. The
attacker plays the server and sends, from round to round, one of two models on which that gradient points opposite
ways: what a round adds, and the next takes away, is the canary's; noise that is the same in both cancels out. With
fresh noise nothing is lost by it.

Everything else is the run's own: local steps, sampling, clipping norm, noise, privacy unit, rounds. Left out is what
only works on noised gradients afterwards (momentum, Adam, weight decay, FedProx, the learning rate).

Source: the strongest canaries of Nasr et al. 2021 (arXiv:2101.04535), section 4, and of Steinke et al. 2023
(arXiv:2305.08846), section 6 ("Dirac canaries").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.plan import LocalPlan, PrivacyPlan
from fedsite.telemetry.dataset import Windows

ENTITY: Final = 2  # windows of a canary where an entity is the unit
WEIGHT: Final = "layers.0.weight"
BIAS: Final = "layers.0.bias"
_STEEP: Final = 20.0  # a canary's gradient before clipping, in clipping norms, at least
_ROOM: Final = 64.0  # weights move by at most one part in so many of what the two models differ by
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """One training that is attacked. Shapes: M canaries, N windows, R rounds."""

    local: LocalPlan
    privacy: PrivacyPlan
    rounds: int
    canaries: int

    @classmethod
    def of(cls, local: LocalPlan, privacy: PrivacyPlan, rounds: int, canaries: int) -> Game:
        """The plan's steps, and a learning rate that leaves the two models where they are."""
        step = privacy.clip * (1.0 + 6.0 * privacy.noise_multiplier) / privacy.batch
        plain = replace(
            local,
            optimizer="sgd",
            learning_rate=min(1e3, 1.0 / (_ROOM * local.steps * step)),
            learning_rate_decay=1.0,
            momentum=0.0,
            weight_decay=0.0,
            proximal=0.0,
        )
        return cls(local=plain, privacy=privacy, rounds=rounds, canaries=canaries)

    @property
    def pull(self) -> float:
        """A canary's one feature: large beside the 1 that the bias sees."""
        return max(20.0, math.sqrt(_STEEP * self.privacy.clip))

    @property
    def signs(self) -> Floats:
        """Which of the two models a round gets, [R]: on 1 canaries push their weight up, on -1 down."""
        return np.where(np.arange(self.rounds) % 2 == 0, 1.0, -1.0)

    def weight(self, sign: float) -> float:
        """Every weight of the model of a round: 0 or 1."""
        return 0.0 if sign > 0 else 1.0

    def windows(self, there: Bools) -> Windows:
        """The data with those canaries [M] that are there, and one window that pulls nowhere."""
        each = ENTITY if self.privacy.unit == "entity" else 1
        places = np.flatnonzero(there)
        x = np.zeros((len(places) * each + 1, 1, self.canaries), np.float32)
        x[np.arange(len(places) * each), 0, np.repeat(places, each)] = self.pull
        y = np.full((len(x), 1), self.pull / 2.0, np.float32)
        y[-1] = 0.0
        entity = np.append(np.repeat(np.arange(len(places)), each), len(places)).astype(np.int64)
        names = tuple(str(number) for number in range(len(places) + 1))
        return Windows(x=x, y=y, entity=entity, entities=names, time=np.arange(len(x), dtype=np.float64))

    def score(self, deltas: Floats) -> Floats:
        """How much each canary seems to be there [..., M], from what the rounds added to the weights [..., R, M]."""
        up, down = self.signs > 0, self.signs < 0
        found = deltas[..., up, :].mean(axis=-2)
        if down.any():  # as much weight on either: noise that is the same in all rounds cancels
            found = (found - deltas[..., down, :].mean(axis=-2)) / 2.0
        unit = self.local.learning_rate * self.privacy.clip / self.privacy.batch
        result: Floats = found / (unit * self.local.steps * self.local.sampling_rate)
        return result  # about 1 where it is there, about 0 where it is not


def coins(seed: int, runs: int, canaries: int) -> Bools:
    """Which canaries are in the data of which training, [run, M]: tossed, and not shown to the attacker."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 0xC01)))).random((runs, canaries)) < 0.5


def with_empty(there: Bools) -> Bools:
    """One training more, with no canary in it: the attacker's own."""
    return np.concatenate([there, np.zeros((1, there.shape[1]), np.bool_)])
