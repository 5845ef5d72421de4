"""Local training at a site: so many steps on Poisson batches, starting from the round's global model.

Without privacy a step averages over the batch it drew. With privacy `train_private` makes the step's gradient, and
everything else (optimizer, FedProx, SCAFFOLD, decay) is the same: it only sees the noised gradient, never the data.

Source: FedProx, Li et al. 2020 (arXiv:1812.06127), equation 2; SCAFFOLD, Karimireddy et al. 2020 (arXiv:1910.06378),
algorithm 1, line 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedsite.models.losses import Loss, loss_function
from fedsite.privacy import sampling
from fedsite.privacy.sampling import SeededSource, Source
from fedsite.protocol.errors import DataError
from fedsite.protocol.plan import LocalPlan, PrivacyPlan
from fedsite.telemetry.dataset import Windows

# One step: gradients of the trainable parameters (None for an empty batch) and the batch's mean loss.
Gradient = Callable[[], tuple[list[Tensor] | None, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a round of local training did. Only `steps` is free of data: it is the plan's."""

    steps: int
    loss: float  # mean over the batches drawn; NaN with privacy, where it would be a release of its own
    examples: int  # windows at hand; never leaves a private site


def train(
    module: nn.Module,
    windows: Windows,
    local: LocalPlan,
    privacy: PrivacyPlan,
    loss: str,
    *,
    round_number: int,
    rng_seed: int | None = None,
    source: Source,
    correction: Sequence[Tensor] = (),
) -> Trained:
    """Take exactly `local.steps` steps on the trainable parameters of `module`, in place.

    Args:
        module: starts at the round's global weights; `requires_grad` says what is trained.
        windows: normalised; `y` in the units the loss takes.
        local: steps, sampling rate, optimizer.
        privacy: whether each step is noised here (not where noise is in the sum only); unit, clipping norm, noise.
        loss: a name of `models.losses`.
        round_number: from 1; the learning rate decays with it.
        rng_seed: makes the batches of training without privacy repeatable; never used with privacy.
        source: the site's randomness.
        correction: added to every gradient, after any noise, one for each trained parameter (SCAFFOLD's c − c_i).

    Raises:
        DataError: there are no windows (a step that is noised here is noise alone then).
        PrivacyError: the private parameters are out of range.
    """
    torch.set_num_threads(1)
    x, y = tensors(windows, loss)
    criterion = loss_function(loss)
    module.train()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not privacy.sample_level:
        if not len(windows):
            raise DataError("no training windows", allowed="at least 1", next_step="run `fedsite data check`")
        draws = SeededSource((rng_seed, round_number)) if rng_seed is not None else source
        gradient = plain_gradient(module, parameters, x, y, criterion, local.sampling_rate, draws)
        mean = _descend(parameters, gradient, local, round_number, correction)
    else:
        from fedsite.client.work import train_private

        with train_private.gradients(module, x, y, windows.entity, criterion, local, privacy, source) as step:
            mean = _descend(parameters, step, local, round_number, correction)
    return Trained(steps=local.steps, loss=mean, examples=len(windows))


def tensors(windows: Windows, loss: str) -> tuple[Tensor, Tensor]:
    """Inputs and what the loss compares predictions with: the labels, or the window itself for reconstruction."""
    x = torch.from_numpy(np.ascontiguousarray(windows.x, dtype=np.float32))
    if loss == "reconstruction":
        return x, x
    target = np.ascontiguousarray(windows.y)
    return x, torch.from_numpy(target if target.dtype.kind == "i" else target.astype(np.float32))


def plain_gradient(
    module: nn.Module, parameters: Sequence[Tensor], x: Tensor, y: Tensor, criterion: Loss, rate: float, source: Source
) -> Gradient:
    """Mean gradient over a Poisson batch; None when nothing was drawn."""

    def step() -> tuple[list[Tensor] | None, float]:
        index = torch.from_numpy(sampling.poisson(len(x), rate, source))
        if not len(index):
            return None, math.nan
        value = criterion(module(x[index]), y[index]).mean()
        return list(torch.autograd.grad(value, parameters)), float(value.detach())

    return step


def _descend(
    parameters: Sequence[Tensor], gradient: Gradient, local: LocalPlan, round_number: int, correction: Sequence[Tensor]
) -> float:
    """Run the optimizer over `local.steps` gradients and return the mean loss of the batches that had one."""
    optimizer = _optimizer(parameters, local, round_number)
    start = [parameter.detach().clone() for parameter in parameters] if local.proximal else []
    losses = []
    for _ in range(local.steps):
        found, value = gradient()
        if found is None:
            continue
        losses.append(value)
        if correction:
            found = [grad + shift for grad, shift in zip(found, correction, strict=True)]
        if local.proximal:
            pairs = zip(found, parameters, start, strict=True)
            found = [grad + local.proximal * (now.detach() - origin) for grad, now, origin in pairs]
        for parameter, grad in zip(parameters, found, strict=True):
            parameter.grad = grad
        optimizer.step()
    for parameter in parameters:
        parameter.grad = None
    return float(np.mean(losses)) if losses else math.nan


def _optimizer(parameters: Sequence[Tensor], local: LocalPlan, round_number: int) -> torch.optim.Optimizer:
    """Fresh every round: a moment kept between rounds would be state that no plan shows."""
    rate = local.rate(round_number)
    if local.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=local.weight_decay)
    return torch.optim.SGD(parameters, lr=rate, momentum=local.momentum, weight_decay=local.weight_decay)
