"""Per-example losses by name: one number a window, so that a privacy unit's gradient can be clipped on its own."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from fedsite.protocol import shape
from fedsite.protocol.errors import ConfigError, DataError

Loss = Callable[[Tensor, Tensor], Tensor]


def names() -> list[str]:
    """Every loss that `loss_function` knows."""
    return sorted(_LOSSES)


def loss_function(name: str) -> Loss:
    """The loss as `(prediction, target) -> [windows]`; finite wherever its arguments are.

    Raises:
        ConfigError: unknown name.
    """
    if name not in _LOSSES:
        raise ConfigError(f"unknown loss {name!r}", allowed=shape.nearest(name, names()))
    return _LOSSES[name]


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over targets of the squared error. prediction, target: [windows, target]."""
    target = _like(prediction, target, "mse")
    return (prediction - target).square().flatten(1).mean(1)


def reconstruction(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over the window of the squared error. prediction, target (the input): [windows, time, feature]."""
    target = _like(prediction, target, "reconstruction")
    return (prediction - target).square().flatten(1).mean(1)


def cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of the class. prediction: logits [windows, class]; target: [windows] integers."""
    if prediction.dim() != 2 or target.dim() != 1:
        raise DataError(
            f"cross_entropy got predictions {list(prediction.shape)} and labels {list(target.shape)}",
            allowed="[windows, classes] and [windows]",
        )
    return functional.cross_entropy(prediction, target.long(), reduction="none")


def binary_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of an event. prediction: logits [windows, 1]; target: [windows] or [windows, 1]."""
    wanted = _like(prediction, target, "binary_cross_entropy")
    # With logits: a saturated sigmoid followed by a logarithm would be infinite.
    return functional.binary_cross_entropy_with_logits(prediction, wanted, reduction="none").flatten(1).mean(1)


def _like(prediction: Tensor, target: Tensor, name: str) -> Tensor:
    # Broadcasting [n] against [n, 1] would silently compare every window with every other.
    if prediction.dim() == 2 and target.dim() == 1 and prediction.shape[1] == 1:
        target = target.unsqueeze(1)
    if prediction.shape != target.shape:
        raise DataError(
            f"{name} got predictions {list(prediction.shape)} and targets {list(target.shape)}",
            allowed="equal shapes",
            next_step="check that the task's model, label and loss belong together",
        )
    return target.to(prediction.dtype)


_LOSSES: dict[str, Loss] = {
    "binary_cross_entropy": binary_cross_entropy,
    "cross_entropy": cross_entropy,
    "mse": mse,
    "reconstruction": reconstruction,
}
