"""DP-SGD at a site: one unit's gradient is clipped, the sum over a Poisson sample is noised, and only that is seen.

A step releases Σ clip(g_unit) + N(0, (σC)²), snapped to a grid, and divides it by `privacy.batch`: a public constant of
the plan. The usual divisor, sampling rate × number of records, would be a function of the site's data under add/remove
adjacency; so would be skipping a step whose sample is empty: here it is a step of pure noise.

Unit `window`: every window is a record. Unit `entity`: all windows of one engine, patient or machine are one record;
entities are sampled, and an entity's gradient is the mean over a random subset of at most `ENTITY_WINDOWS` of its
windows.

The clipped sum of a model from the catalog comes from explicit formulas (`models.clipped_sums`). Any other model's
comes from autograd: one backward pass for each entity, and for windows Opacus' hooks, which give the norms of
per-example gradients, and a second backward pass of the reweighted losses (ghost clipping).

Gradients are computed on a float64 copy of the model, so that rounding stays within the slack that `mechanisms.summed`
adds to the sensitivity.

Source: Abadi et al. 2016 (arXiv:1607.00133), algorithm 1; ghost clipping, Li et al. 2022 (arXiv:2110.05679), section 4.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsite.client.work.train import Gradient
from fedsite.models import clipped_sums
from fedsite.models.losses import Loss
from fedsite.privacy import clipping, mechanisms, sampling
from fedsite.privacy.sampling import Source
from fedsite.protocol.errors import ConfigError, RefusalCode
from fedsite.protocol.plan import LocalPlan, PrivacyPlan

ENTITY_WINDOWS = 128  # windows of one entity that enter one step; bounds time and memory, not privacy
CHUNK_NUMBERS = 1 << 23  # per-example gradient numbers held at once, where a layer needs them (64 MiB)

# Sum of the clipped gradients of the sampled units: indices of units -> [numbers] float64.
Clipped = Callable[[NDArray[np.int64]], NDArray[np.float64]]


@contextmanager
def gradients(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    entity: NDArray[np.int64],
    criterion: Loss,
    local: LocalPlan,
    privacy: PrivacyPlan,
    source: Source,
) -> Iterator[Gradient]:
    """Yield a function that makes one noised gradient, of the trainable parameters as they are then, per call.

    Raises:
        ConfigError: the model has a layer that mixes the records of a batch.
        PrivacyError: clipping norm, noise or sampling rate is out of range.
    """
    mine = [parameter for parameter in module.parameters() if parameter.requires_grad]
    members = None
    if privacy.unit == "entity":
        members = [np.flatnonzero(entity == number) for number in np.unique(entity)]
    units = len(x) if members is None else len(members)
    hooks: Any = None
    if clipped_sums.supported(module):
        sums = clipped_sums.ClippedSums(module, x, y, criterion)
        parameters, clipped = sums.parameters, _explicit(sums, members, privacy.clip, source)
    else:
        shadow = copy.deepcopy(module).double()
        parameters = [parameter for parameter in shadow.parameters() if parameter.requires_grad]
        losses = _losses(shadow, x, y, criterion)
        if members is not None:
            clipped = _entities(losses, parameters, members, privacy.clip, source)
        else:
            hooks = _hooks(shadow, x)
            clipped = _windows(losses, parameters, hooks, privacy.clip)

    def step() -> tuple[list[Tensor] | None, float]:
        with torch.no_grad():
            for parameter, current in zip(parameters, mine, strict=True):
                parameter.copy_(current)
        sample = sampling.poisson(units, local.sampling_rate, source)
        sensitivity = mechanisms.summed(privacy.clip, len(sample))
        noised = mechanisms.gaussian(clipped(sample), sensitivity, privacy.noise_multiplier, source)
        return _shaped(noised / privacy.batch, mine), math.nan

    try:
        yield step
    finally:
        if hooks is not None:
            hooks.cleanup()


def _losses(shadow: nn.Module, x: Tensor, y: Tensor, criterion: Loss) -> Callable[[Tensor], Tensor]:
    """Loss of each of the indexed windows [windows]."""

    def losses(index: Tensor) -> Tensor:
        wanted = y[index]
        return criterion(shadow(x[index].double()), wanted.double() if wanted.is_floating_point() else wanted)

    return losses


def _explicit(
    sums: clipped_sums.ClippedSums, members: list[NDArray[np.int64]] | None, bound: float, source: Source
) -> Clipped:
    def total(sample: NDArray[np.int64]) -> NDArray[np.float64]:
        if members is None:
            return sums.total(sample, None, bound)
        rows = [_chosen(members[number], source) for number in sample]
        if not rows:
            return sums.total(sample, sample, bound)
        return sums.total(np.concatenate(rows), np.array([len(own) for own in rows]), bound)

    return total


def _chosen(own: NDArray[np.int64], source: Source) -> NDArray[np.int64]:
    """The windows of one entity that enter a step."""
    return own[sampling.choose(len(own), ENTITY_WINDOWS, source)]


def _windows(losses: Callable[[Tensor], Tensor], parameters: Sequence[Tensor], hooks: Any, bound: float) -> Clipped:
    numbers = sum(parameter.numel() for parameter in parameters)
    rows = max(1, CHUNK_NUMBERS // max(numbers, 1))

    def total(sample: NDArray[np.int64]) -> NDArray[np.float64]:
        found = np.zeros(numbers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # windows need no gradient of their own, which torch finds worth a warning
            for start in range(0, len(sample), rows):
                found += chunk(sample[start : start + rows])
        return found

    def chunk(sample: NDArray[np.int64]) -> NDArray[np.float64]:
        hooks.enable_hooks()
        each = losses(torch.from_numpy(sample))
        torch.autograd.grad(each.sum(), parameters, retain_graph=True)
        scale = clipping.factors(hooks.get_norm_sample().numpy(), bound)
        hooks.disable_hooks()
        if (scale == 0.0).any():  # infinity times zero would be NaN: such windows are left out
            kept = sample[scale > 0.0]
            return chunk(kept) if len(kept) else np.zeros(numbers)
        return _flat(torch.autograd.grad(torch.from_numpy(scale) @ each, parameters))

    return total


def _entities(
    losses: Callable[[Tensor], Tensor],
    parameters: Sequence[Tensor],
    members: list[NDArray[np.int64]],
    bound: float,
    source: Source,
) -> Clipped:
    def total(sample: NDArray[np.int64]) -> NDArray[np.float64]:
        found = np.zeros(sum(parameter.numel() for parameter in parameters))
        for number in sample:
            index = torch.from_numpy(_chosen(members[number], source))
            gradient = _flat(torch.autograd.grad(losses(index).mean(), parameters))
            found += clipping.clip_rows(gradient[None], bound)[0]
        return found

    return total


def _flat(gradient: tuple[Tensor, ...]) -> NDArray[np.float64]:
    return torch.cat([part.flatten() for part in gradient]).numpy()


def _shaped(vector: NDArray[np.float64], parameters: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.from_numpy(vector).split([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter).to(parameter.dtype) for part, parameter in zip(parts, parameters, strict=True)]


def _hooks(shadow: nn.Module, x: Tensor) -> Any:
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleHooksFastGradientClipping

    ghost = not _reuses_layers(shadow, x)
    try:
        return GradSampleHooksFastGradientClipping(
            shadow, batch_first=True, loss_reduction="sum", use_ghost_clipping=ghost
        )
    except NotImplementedError as error:
        raise ConfigError(
            f"the model has a layer that differential privacy cannot train ({str(error).splitlines()[0][:120]})",
            allowed="layers that treat each window on its own (GroupNorm or LayerNorm instead of BatchNorm)",
            next_step="choose another model.name, or privacy=none",
            refusal=RefusalCode.MODEL_INVALID,
        ) from None


def _reuses_layers(shadow: nn.Module, x: Tensor) -> bool:
    """Whether a layer runs more than once per window (recurrence): its norms need the gradients themselves."""
    calls: dict[nn.Module, int] = {}

    def count(layer: nn.Module, _: Any) -> None:
        calls[layer] = calls.get(layer, 0) + 1

    handles = [layer.register_forward_pre_hook(count) for layer in shadow.modules()]
    with torch.no_grad():
        shadow(torch.zeros((2, *x.shape[1:]), dtype=torch.float64))
    for handle in handles:
        handle.remove()
    return any(number > 1 for number in calls.values())
