"""What a site computes for each instruction, as the named values of its reply.

Pure functions of plan, data, weights and a source of randomness. Whatever depends on data and leaves a site leaves
through here (the list is `privacy/released.py`). With `privacy=sample` each answer is one Gaussian mechanism, or the
steps of DP-SGD (models/spends.py says what they cost). With `privacy=site` a site is one unit of every sum; what is
returned here gets its clipping and its part of the noise on the grid of the sum (client/work/noise.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedsite.client.work.judging import judged, label_scale, predict, scaled
from fedsite.privacy import mechanisms, sampling
from fedsite.privacy.sampling import Source
from fedsite.protocol.errors import ConfigError, PolicyError, RefusalCode
from fedsite.protocol.messages import DELTA, LOSS, WEIGHT
from fedsite.protocol.plan import RoundPlan
from fedsite.telemetry import statistics as sums
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.statistics import Normalisation
from fedsite.telemetry.task import Task, read_task

if TYPE_CHECKING:
    from torch import nn

Values = dict[str, NDArray[np.generic]]


def statistics(plan: RoundPlan, data: SiteData, source: Source, *, simulated: bool = False) -> Values:
    """Sums for the federation's normalisation: `statistics/count` [1], `statistics/sum` [F], `statistics/square` [F].

    Readings are clipped to their public ranges, and under privacy each unit to `unit_bound`. Nothing under
    privacy without `statistics_noise`: the schema's ranges normalise then, and no data is read. Where the site is the
    unit, clipping and noise come with the sum (client/work/noise.py).
    """
    privacy = plan.privacy
    windows = data.train
    if privacy.mode == "none":
        return _named(sums.window_sums(windows.x, data.minimum, data.maximum))
    if not privacy.statistics_noise > 0.0:
        return {}
    _secure(source, simulated)
    if privacy.site_level:
        whole = _unit_sums(windows.x, data)
        count, first, second = np.split(whole, [1, 1 + len(data.features)])
        return _named(sums.Sums(count=count, total=first, square=second))
    if privacy.unit == "window":
        units = [windows.x[number : number + 1] for number in range(len(windows))]
    else:
        units = [windows.x[windows.entity == number] for number in np.unique(windows.entity)]
    rows = [_unit_sums(unit, data) for unit in units]
    contributions = np.array(rows).reshape(len(rows), 1 + 2 * len(data.features))
    bound = sums.unit_bound(len(data.features))
    total = mechanisms.noised_sum(contributions, bound, privacy.statistics_noise, source)
    count, first, second = np.split(total, [1, 1 + len(data.features)])
    return _named(sums.Sums(count=count, total=first, square=second))


def train_round(
    plan: RoundPlan,
    data: SiteData,
    weights: Mapping[str, NDArray[np.generic]],
    normalisation: Normalisation,
    evaluate: bool,
    source: Source,
    round_number: int,
    *,
    seed: int | None = None,
    simulated: bool = False,
    correction: Mapping[str, NDArray[np.float32]] | None = None,
) -> Values:
    """Train from `weights` and answer `delta/<parameter>`, `weight` [1], and `loss` [1] without privacy.

    With `evaluate` also the incoming model's `evaluation/…`, before it is trained. `weight` is the number of windows
    where these count (`plan.weighted`: never with privacy), and the public constant 1 where they do not.

    Args:
        plan: the run.
        data: the site's windows, in the features' own units.
        weights: all of the model's, by name.
        normalisation: the federation's.
        evaluate: judge the incoming model too.
        source: the site's randomness.
        round_number: from 1.
        seed: makes batches repeatable without privacy (simulation, tests).
        simulated: allows a seeded source under privacy; never set at a real site.
        correction: added to every gradient, by trained parameter (client/work/control.py).

    Raises:
        ConfigError: training diverged, without privacy; with it, weights that are not finite stay as they came.
        IntegrityError: the weights do not fit the model.
        PrivacyError: a seeded source under privacy.
    """
    from fedsite.client.work.train import train
    from fedsite.models import vector

    private = plan.privacy.mode != "none"
    if private:
        _secure(source, simulated)
    task = read_task(plan.task)
    module = _loaded(plan, task, weights)
    names = vector.trainable(module, plan.model.trainable)
    found: Values = {}
    if evaluate and (not private or plan.privacy.evaluation_noise > 0.0):
        found |= _evaluation(plan, task, data, module, normalisation, source)
    windows = scaled(data.train, task, normalisation)
    trained = train(
        module,
        windows,
        plan.local,
        plan.privacy,
        task.loss,
        round_number=round_number,
        rng_seed=None if private else seed,
        source=source,
        correction=() if correction is None else vector.ordered(module, correction),
    )
    after = vector.state(module)
    if private:
        # A refusal would say that this very noise made it diverge, as often as the centre asks and uncharged.
        after = vector.finite(after, weights)
    elif not all(np.isfinite(after[name]).all() for name in names):
        raise ConfigError(
            f"training diverged in round {round_number}: weights are no longer finite",
            allowed="a learning rate the model bears",
            next_step=f"launch with local.learning_rate below {plan.local.learning_rate:g}",
        )
    for name, array in vector.delta(after, weights, names).items():
        found[DELTA + name] = array
    found[WEIGHT] = np.array([float(trained.examples) if plan.weighted else 1.0])
    if not private:
        found[LOSS] = np.array([trained.loss if math.isfinite(trained.loss) else 0.0])
    return found


def evaluate(
    plan: RoundPlan,
    data: SiteData,
    weights: Mapping[str, NDArray[np.generic]],
    normalisation: Normalisation,
    source: Source,
    *,
    simulated: bool = False,
) -> Values:
    """Metric sums `evaluation/<name>` of a model on the holdout, each privacy unit counted once.

    Raises:
        PolicyError: privacy without evaluation noise.
        PrivacyError: a seeded source under privacy.
    """
    if plan.privacy.mode != "none":
        _secure(source, simulated)
        _require_noise(plan.privacy.evaluation_noise, "evaluation")
    task = read_task(plan.task)
    return _evaluation(plan, task, data, _loaded(plan, task, weights), normalisation, source)


def calibrate(
    plan: RoundPlan,
    data: SiteData,
    graph: bytes,
    normalisation: Normalisation,
    tensors: Sequence[str],
    source: Source,
    *,
    simulated: bool = False,
) -> Values:
    """Histograms of activations over the training windows, for the int8 ranges and the anomaly threshold.

    `calibration/positive`, `calibration/negative` [tensor, bin]: each privacy unit counts once per tensor, at its
    largest value and at its largest negated value. Anomaly tasks add `calibration/score` [bin]: each unit's largest.

    Raises:
        PolicyError: privacy without calibration noise.
        PrivacyError: a seeded source under privacy.
    """
    from fedsite.models import calibration

    private = plan.privacy.mode != "none"
    if private:
        _secure(source, simulated)
        _require_noise(plan.privacy.calibration_noise, "calibration")
    task = read_task(plan.task)
    windows = scaled(data.train, task, normalisation)
    unit = _unit(plan, windows)
    scores = task.loss == "reconstruction"
    counted = calibration.counts(graph, list(tensors), windows.x, unit=unit, scores=scores, isolated=private)
    found: Values = {f"calibration/{name}": array for name, array in counted.items()}
    if not plan.privacy.sample_level:
        return found
    bound = mechanisms.summed(calibration.sensitivity(len(tensors), scores=scores), len(windows))
    return _noised(found, bound, plan.privacy.calibration_noise, source)


def build(plan: RoundPlan, task: Task) -> nn.Module:
    """The plan's model with fresh weights.

    Raises:
        ConfigError: this site does not have that architecture, or its options do not fit.
    """
    from fedsite.models import catalog

    time, features = task.input_shape
    return catalog.build(
        plan.model.name, plan.model.options, time=time, features=features, outputs=task.outputs, seed=plan.seed
    )


def _evaluation(
    plan: RoundPlan, task: Task, data: SiteData, module: nn.Module, normalisation: Normalisation, source: Source
) -> Values:
    from fedsite.models import metrics

    private = plan.privacy.mode != "none"
    windows = scaled(data.holdout, task, normalisation)
    given = judged(task, windows, predict(module, windows.x))
    reference = None
    if task.metric.name == "f1_at_threshold" and not private:
        # Under privacy the threshold comes from the calibration histogram, or from the normal windows' own scores.
        normal = scaled(data.train, task, normalisation)
        reference = judged(task, normal, predict(module, normal.x))
    found = metrics.sums(
        task.metric,
        given,
        windows.y,
        scale=label_scale(task),
        unit=_unit(plan, windows),
        reference=reference,
    )
    named: Values = {f"evaluation/{name}": array for name, array in found.items()}
    if not plan.privacy.sample_level:
        return named
    bound = mechanisms.summed(metrics.sensitivity(task.metric), len(windows))
    return _noised(named, bound, plan.privacy.evaluation_noise, source)


def _unit(plan: RoundPlan, windows: Windows) -> NDArray[np.integer] | None:
    """What counts as one in sums, by its number [windows]: a window (None), an entity, or the whole site."""
    if plan.privacy.mode == "site":
        return np.zeros(len(windows), np.int64)
    return windows.entity if plan.privacy.sample_level and plan.privacy.unit == "entity" else None


def _loaded(plan: RoundPlan, task: Task, weights: Mapping[str, NDArray[np.generic]]) -> nn.Module:
    from fedsite.models import vector

    module = build(plan, task)
    vector.load(module, weights)
    return module


def _unit_sums(x: NDArray[np.float32], data: SiteData) -> NDArray[np.float64]:
    """One privacy unit's (count, sums, squares), its windows averaged: [1 + 2F]."""
    found = sums.window_sums(x, data.minimum, data.maximum)
    return np.concatenate([found.count, found.total, found.square]) / max(len(x), 1)


def _named(found: sums.Sums) -> Values:
    return {"statistics/count": found.count, "statistics/sum": found.total, "statistics/square": found.square}


def _noised(values: Values, bound: float, noise_multiplier: float, source: Source) -> Values:
    """All arrays as one vector through one mechanism: their joint L2 sensitivity is `bound`."""
    names = sorted(values)
    flat = np.concatenate([np.asarray(values[name], np.float64).ravel() for name in names])
    noised = mechanisms.gaussian(flat, bound, noise_multiplier, source)
    ends = np.cumsum([values[name].size for name in names])[:-1]
    return {name: part.reshape(values[name].shape) for name, part in zip(names, np.split(noised, ends), strict=True)}


def _secure(source: Source, simulated: bool) -> None:
    if not simulated:
        sampling.require_secure(source)


def _require_noise(noise: float, what: str) -> None:
    if not noise > 0.0:
        raise PolicyError(
            f"{what} of private data without noise",
            allowed=f"privacy.{what}_noise above 0",
            next_step=f"launch with privacy.{what}_noise=20, or do without",
            refusal=RefusalCode.PLAN_INVALID,
        )
