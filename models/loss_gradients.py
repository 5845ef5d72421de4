"""Gradients of the losses with respect to the prediction, written out: each window's own, in one expression.

A loss that is not one of ours is differentiated by autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsite.models import losses
from fedsite.models.losses import Loss
from fedsite.models.steps_plain import Array

Gradient = Callable[[Array, NDArray[Any]], Array]


def gradient(criterion: Loss) -> Gradient:
    """The function (prediction, target) -> gradient of each window's loss, in the prediction's shape.

    Shapes are not compared: the loss itself refuses those that do not fit.
    """
    return _GRADIENTS.get(criterion) or _by_autograd(criterion)


def of_tensors(criterion: Loss, device: str = "cpu") -> Callable[[Tensor, Tensor], Tensor]:
    """The same for tensors of a device: the expressions on a CPU, autograd elsewhere, which is as quick there."""
    formula = gradient(criterion)

    def found(prediction: Tensor, target: Tensor) -> Tensor:
        if device == "cpu":
            return torch.from_numpy(formula(prediction.numpy(), target.numpy()))
        free = prediction.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(criterion(free, target).sum(), free)[0]

    return found


def _squares(prediction: Array, target: NDArray[Any]) -> Array:
    difference: Array = prediction - target.reshape(prediction.shape)
    difference *= 2.0 / max(prediction[:1].size, 1)
    return difference


def _classes(prediction: Array, target: NDArray[Any]) -> Array:
    found: Array = np.exp(prediction - prediction.max(1, keepdims=True))
    found /= found.sum(1, keepdims=True)
    found[np.arange(len(target)), target] -= 1.0
    return found


def _events(prediction: Array, target: NDArray[Any]) -> Array:
    found: Array = 1.0 / (1.0 + np.exp(-prediction))
    found -= target.reshape(prediction.shape)
    found /= max(prediction[:1].size, 1)
    return found


def _by_autograd(criterion: Loss) -> Gradient:
    def found(prediction: Array, target: NDArray[Any]) -> Array:
        wanted = torch.from_numpy(target)
        free = torch.from_numpy(prediction).requires_grad_()
        each = criterion(free, wanted.double() if wanted.is_floating_point() else wanted)
        answer: Array = torch.autograd.grad(each.sum(), free)[0].numpy()
        return answer

    return found


_GRADIENTS: dict[Loss, Gradient] = {
    losses.mse: _squares,
    losses.reconstruction: _squares,
    losses.cross_entropy: _classes,
    losses.binary_cross_entropy: _events,
}
