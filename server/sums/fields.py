"""What a secure sum is of: fields from what a question expects and the plan, and a phase's values from the sum.

Where windows count (`plan.weighted`) a site weighs its windows over `examples_max`; `weight` is a field of its own
whose sum is the sum of the weights. With privacy every site weighs 1: its number of windows would be told by its
weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsite.models import sum_noise
from fedsite.protocol import weights
from fedsite.protocol.errors import IntegrityError, RefusalCode
from fedsite.protocol.messages import DELTA, LOSS, WEIGHT, Purpose
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.secagg import fixedpoint
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.server.rounds import evaluation
from fedsite.server.rounds.replies import Expected, Shape
from fedsite.telemetry.task import Task

LOSS_BOUND: Final = 1e4
WINDOWS_MAX: Final = 2.0**30  # of one site
FINE: Final = 2.0**20  # steps that a window's part, at most 1, is told in
COUNTS: Final = 4.0  # the same of histograms, which count
_COUNTED: Final = ("statistics/", "evaluation/", "parity/")  # sums over windows: many small things, large together


def manifest(plan: RoundPlan, purpose: Purpose, expected: Expected) -> Manifest:
    """The terms of a sum of what `expected` names.

    Raises:
        ConfigError: noise in sums, and a value that it is not defined for.
        DocumentError: more sites, or less noise, than a grid bears.
    """
    protection = plan.protection
    weighted = plan.weighted
    shapes = {**expected.required, **expected.optional}
    bare = [_field(plan, name, shapes[name]) for name in sorted(shapes) if weighted or name != WEIGHT]
    fields, noise = sum_noise.noised(plan, bare)
    return Manifest(
        purpose=purpose,
        plan_hash=plan.hash,
        sites=protection.sites,
        fields=fields,
        examples_max=protection.examples_max if any(field.weighted for field in fields) else 0,
        terms=protection.terms,
        noise=noise,
    )


def train_values(
    plan: RoundPlan, task: Task, arrays: Mapping[str, NDArray[np.generic]], trained: Sequence[str], *, evaluate: bool
) -> Expected:
    """What a round of training answers with.

    Args:
        plan: of the run.
        task: its task.
        arrays: the model's.
        trained: names of those that are trained.
        evaluate: whether the model that it trains from is evaluated too.
    """
    private = plan.privacy.mode != "none"
    required, optional = evaluation.evaluation_shapes(task) if evaluate else ({}, {})
    deltas = {DELTA + name: arrays[name].shape for name in trained}
    own = {WEIGHT: (1,)} if private else {WEIGHT: (1,), LOSS: (1,)}
    return Expected(required={**deltas, **own, **required}, optional=optional, weight=None if plan.weighted else 1.0)


def decode(plan: RoundPlan, terms: Manifest, total: NDArray[np.uint32], sites: int) -> weights.Arrays:
    """A phase's values from the sum over `sites`: weighted means of deltas and loss, plain sums of the rest.

    Raises:
        IntegrityError: the weights of the sites do not add up to what that many can have.
    """
    found: dict[str, NDArray[np.float64]] = {}
    start = 0
    for item in terms.fields:
        # One field at a time: the whole vector in wide integers would be twice its size.
        words = fixedpoint.from_ring(total[start : start + item.size])
        found |= fixedpoint.decode((item,), words, terms.scales, sites=terms.sites)
        start += item.size
    if terms.purpose != "train":
        return found
    if WEIGHT in found:
        share = float(found[WEIGHT][0])
        if not 0.0 < share <= sites * (1.0 + 1e-6):
            raise IntegrityError(
                f"weights that add up to {share:.6g}",
                allowed=f"above 0, at most {sites}: one site sends nonsense",
                refusal=RefusalCode.MODEL_INVALID,
            )
        windows = share * plan.protection.examples_max
    else:
        share = windows = float(sites)
    for name, value in found.items():
        if name.startswith(DELTA) or name == LOSS:
            value /= share
    return {**found, WEIGHT: np.array([windows])}


def _field(plan: RoundPlan, name: str, shape: Shape) -> Field:
    weighted = plan.weighted
    if name.startswith(DELTA):
        return Field(name=name, shape=shape, bound=plan.protection.bound, weighted=weighted)
    if name == WEIGHT:
        return Field(name=name, shape=shape, bound=1.0, weighted=weighted)
    if name == LOSS:
        return Field(name=name, shape=shape, bound=LOSS_BOUND, weighted=weighted, wide=True)
    wide = name.startswith(_COUNTED)
    return Field(name=name, shape=shape, bound=_most(plan, wide), wide=wide)


def _most(plan: RoundPlan, wide: bool) -> float:
    """The bound of a sum over one site's windows: as many as its grid can still count finely, so that none is cut.

    A site with more windows than the bound would send a sum and a count that do not fit each other.
    """
    sites = plan.protection.sites
    steps = (fixedpoint.LIMIT // sites - 1) * (2.0 ** fixedpoint.low_bits(sites) if wide else 1.0)
    room = min(WINDOWS_MAX, steps / (FINE if wide else COUNTS))
    return max(float(plan.protection.examples_max), 2.0 ** math.floor(math.log2(room)))
