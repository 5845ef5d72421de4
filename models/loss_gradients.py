"""Gradients of the losses with respect to the prediction, written out: each window's own, in one expression.

A loss that is not one of ours is differentiated by autograd.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fedsite.models import losses
from fedsite.models.losses import Loss

Gradient = Callable[[Tensor, Tensor], Tensor]


def gradient(criterion: Loss) -> Gradient:
    """The function (prediction, target) -> gradient of each window's loss, in the prediction's shape.

    Shapes are not compared: the loss itself refuses those that do not fit.
    """
    return _GRADIENTS.get(criterion) or _by_autograd(criterion)


def _squares(prediction: Tensor, target: Tensor) -> Tensor:
    difference = prediction - target.view_as(prediction)
    return difference.mul_(2.0 / (difference.numel() // max(len(difference), 1)))


def _classes(prediction: Tensor, target: Tensor) -> Tensor:
    found = torch.softmax(prediction, 1)
    found.numpy()[np.arange(len(target)), target.numpy()] -= 1.0
    return found


def _events(prediction: Tensor, target: Tensor) -> Tensor:
    found = torch.sigmoid(prediction) - target.view_as(prediction)
    return found.div_(found.numel() // max(len(found), 1))


def _by_autograd(criterion: Loss) -> Gradient:
    def found(prediction: Tensor, target: Tensor) -> Tensor:
        with torch.enable_grad():
            free = prediction.detach().requires_grad_()
            return torch.autograd.grad(criterion(free, target).sum(), free)[0]

    return found


_GRADIENTS: dict[Loss, Gradient] = {
    losses.mse: _squares,
    losses.reconstruction: _squares,
    losses.cross_entropy: _classes,
    losses.binary_cross_entropy: _events,
}
