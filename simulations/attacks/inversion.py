"""Gradient inversion: what somebody who sees a site's update learns about the windows it was made of.

Two attacks. By formula: in a dense layer that reads the window, the gradient of a weight is δ·x and that of its bias
δ, so that of one window the quotient is the window itself, exactly; of several it is a mixture. By search: look for a
window whose gradient points where the seen one does (cosine distance, with a penalty on what is not smooth), which
works for any model that can be differentiated twice. Labels of a single window follow from the last layer's bias.

Source: Phong et al. 2018 (doi:10.1109/TIFS.2017.2787987), section 3, and Geiping et al. 2020 (arXiv:2003.14053),
proposition 3.1 (by formula) and section 4 (by search); Zhu et al. 2019 (arXiv:1906.08935); labels, Zhao et al. 2020
(arXiv:2001.02610).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from fedsite.models.losses import Loss

if TYPE_CHECKING:
    from torch import Tensor, nn

Floats = NDArray[np.float64]
_SMALL: Final = 1e-12  # of a bias gradient beside the largest: nothing can be divided by less


def quotients(weight: Floats, bias: Floats) -> Floats:
    """Candidates for windows [candidate, number] from the first dense layer's gradients.

    Args:
        weight: [output, number].
        bias: [output].

    Returns:
        The least-squares quotient over all outputs first (the window, where there was one), then each output's own.
    """
    square = float(bias @ bias)
    if square == 0.0:
        return np.zeros((1, weight.shape[1]))
    whole = bias @ weight / square
    own = np.flatnonzero(np.abs(bias) > _SMALL * np.abs(bias).max())
    return np.concatenate([whole[None], weight[own] / bias[own, None]])


def label(bias: Floats) -> int:
    """The class of a single window, from the last layer's bias gradient [class]: the only one that is pushed up."""
    return int(np.argmin(bias))


def search(
    module: nn.Module,
    criterion: Loss,
    gradient: Sequence[Floats],
    target: NDArray[np.generic],
    shape: tuple[int, ...],
    *,
    iterations: int = 400,
    restarts: int = 2,
    rate: float = 0.1,
    smooth: float = 1e-3,
    seed: int = 0,
) -> Floats:
    """Windows [window, time, feature] whose mean gradient points where `gradient` does.

    Args:
        module: with the weights that the update started from.
        criterion: the loss.
        gradient: of each trained parameter, in the module's order; its length does not matter.
        target: labels of the windows that are looked for (an attacker often has them, from `label`).
        shape: of the windows [window, time, feature].
        iterations: of Adam on the gradient's signs, from each start.
        restarts: random starts; the best end is taken.
        rate: of the first iterations; it falls tenfold towards the end, three times.
        smooth: weight of the total variation.
        seed: of the starts.
    """
    import torch

    wanted = [torch.from_numpy(np.asarray(part, np.float32)) for part in gradient]
    y = torch.from_numpy(np.asarray(target, np.int64 if np.asarray(target).dtype.kind == "i" else np.float32))
    best, found = np.inf, np.zeros(shape)
    module.eval()
    for start in range(restarts):
        draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, start))))
        x = torch.from_numpy(draws.standard_normal(shape).astype(np.float32)).requires_grad_()
        optimizer = torch.optim.Adam([x], lr=rate)
        steps = [iterations * part // 8 for part in (3, 5, 7)]
        falling = torch.optim.lr_scheduler.MultiStepLR(optimizer, steps, 0.1)
        distance = np.inf
        for _ in range(iterations):
            loss = _distance(module, criterion, x, y, wanted)
            distance = float(loss.detach())
            (slope,) = torch.autograd.grad(loss + smooth * _variation(x), x)
            x.grad = slope.sign()
            optimizer.step()
            falling.step()
        if distance < best:
            best, found = distance, x.detach().numpy().astype(np.float64)
    return found


def _distance(module: nn.Module, criterion: Loss, x: Tensor, y: Tensor, wanted: Sequence[Tensor]) -> Tensor:
    """1 − cosine of the angle between the gradient of these windows and the one that was seen."""
    import torch

    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    given = torch.autograd.grad(criterion(module(x), y).mean(), trained, create_graph=True)
    product = torch.stack([(a * b).sum() for a, b in zip(given, wanted, strict=True)]).sum()
    lengths = [torch.stack([part.square().sum() for part in parts]).sum().sqrt() for parts in (given, wanted)]
    return 1.0 - product / (lengths[0] * lengths[1]).clamp(min=1e-20)


def _variation(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbours in time and across features."""
    down = (x[:, 1:] - x[:, :-1]).abs().mean() if x.shape[1] > 1 else x.sum() * 0.0
    across = (x[:, :, 1:] - x[:, :, :-1]).abs().mean() if x.shape[2] > 1 else x.sum() * 0.0
    return down + across
