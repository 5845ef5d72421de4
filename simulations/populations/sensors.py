"""How each site's sensors differ from the others', and how they drift: a gain and an offset by site and channel.

A feature of a window moves as its channel does. What tells where readings lie (mean, minimum, maximum, last, lag, and
the root mean square, nearly) has gain and offset, what tells how they differ (deviation, range, slope, rate) the gain
alone, and power in a band the gain's square. Values are clipped to the schema's ranges, as production clips readings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsite.simulations.populations.places import Ints
from fedsite.simulations.populations.spec import DriftSpec, ShiftSpec
from fedsite.simulations.runs.draws import Draw, normals
from fedsite.telemetry.dataset import SiteData
from fedsite.telemetry.feature_names import columns
from fedsite.telemetry.task import Task

_SPREAD = ("std", "slope", "range", "rate", "band")
_BLOCK = 1 << 14  # windows moved at once
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensors:
    """Shapes: by feature, [feature]."""

    shift: ShiftSpec
    drift: DriftSpec
    seed: int
    channel: Ints  # number of the channel a feature is made of
    power: Reals  # of the gain
    centre: Reals  # what the gain turns about: the channel's mean, 0 for what tells how readings differ
    spread: Reals  # the channel's, where the offset counts; else 0
    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]

    @classmethod
    def of(cls, task: Task, data: SiteData, shift: ShiftSpec, drift: DriftSpec, seed: int) -> Sensors:
        """Means and spreads are those of all training windows."""
        names = task.channel_names
        known = list(columns(task.features, names)) if task.features else []
        made = [(names.index(name), feature.kind) for feature, name, _ in known]
        made = made or [(number, "last") for number in range(len(data.features))]
        x = data.train.x.reshape(-1, data.train.x.shape[-1])
        mean, deviation = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        first: dict[int, int] = {}  # the feature that tells where a channel's readings lie
        for number, (channel, kind) in enumerate(made):
            if kind not in _SPREAD:
                first.setdefault(channel, number)
        lies = [first[channel] if kind not in _SPREAD else None for channel, kind in made]
        return cls(
            shift=shift,
            drift=drift,
            seed=seed,
            channel=np.array([channel for channel, _ in made], np.int64),
            power=np.array([2.0 if kind == "band" else 1.0 for _, kind in made]),
            centre=np.array([0.0 if number is None else mean[number] for number in lies]),
            spread=np.array([0.0 if number is None else deviation[number] for number in lies]),
            minimum=data.minimum,
            maximum=data.maximum,
        )

    @property
    def any(self) -> bool:
        """Whether anything is moved, now or later."""
        return self.shift.any or (self.drift.any and max(self.drift.gain, self.drift.offset) > 0)

    def drawn(self, sites: Ints, phase: int) -> tuple[Reals, Reals]:
        """Gain and offset of these sites in a phase, each [site, feature]; the offset in the feature's units."""
        channels = int(self.channel.max()) + 1
        log_gain, offset = np.zeros((len(sites), channels)), np.zeros((len(sites), channels))
        part = phase / (self.drift.phases - 1) if self.drift.any else 0.0
        for spec, what, share in ((self.shift, Draw.SHIFT, 1.0), (self.drift, Draw.DRIFT, part)):
            found = share * normals(self.seed, what, sites, count=2 * channels)
            log_gain += spec.gain * found[:, :channels]
            offset += spec.offset * found[:, channels:]
        return np.exp(log_gain[:, self.channel] * self.power), offset[:, self.channel] * self.spread

    def moved(self, x: NDArray[np.float32], site: Ints, phase: int) -> NDArray[np.float32]:
        """Windows x [window, time, feature] as the sites [window] read them."""
        if not self.any or not len(x):
            return x
        sites, number = np.unique(site, return_inverse=True)
        gain, offset = self.drawn(sites, phase)
        found = np.empty_like(x)
        for start in range(0, len(x), _BLOCK):
            part = slice(start, start + _BLOCK)
            turned = (x[part] - self.centre) * gain[number[part], None] + (self.centre + offset[number[part], None])
            found[part] = np.clip(turned, self.minimum, self.maximum)
        return found
