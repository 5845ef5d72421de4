"""Losses: one number a window, by hand; finite; shapes that would broadcast are refused."""

from __future__ import annotations

import math

import pytest
import torch

from fedsite.models import losses
from fedsite.protocol.errors import ConfigError, DataError


def test_by_hand():
    mse = losses.loss_function("mse")
    assert mse(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 2.0]])).tolist() == [2.5, 2.0]
    rebuilt = losses.loss_function("reconstruction")(torch.ones(2, 3, 2), torch.zeros(2, 3, 2))
    assert rebuilt.tolist() == [1.0, 1.0]
    entropy = losses.loss_function("cross_entropy")(torch.zeros(2, 4), torch.tensor([0, 3]))
    assert entropy.tolist() == pytest.approx([math.log(4)] * 2)
    binary = losses.loss_function("binary_cross_entropy")(torch.zeros(2, 1), torch.tensor([0, 1]))
    assert binary.tolist() == pytest.approx([math.log(2)] * 2)


def test_one_target_may_come_flat():
    assert losses.mse(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 0.0])).tolist() == [1.0, 4.0]


@pytest.mark.parametrize(
    ("name", "target"), [("cross_entropy", torch.tensor([0, 1])), ("binary_cross_entropy", torch.tensor([0, 1]))]
)
def test_saturated_logits_stay_finite(name, target):
    logits = torch.tensor([[1e4], [-1e4]]) if name.startswith("binary") else torch.tensor([[-1e4, 1e4], [1e4, -1e4]])
    logits.requires_grad_()
    loss = losses.loss_function(name)(logits, target)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", losses.names())
def test_no_windows_no_losses(name):
    shape = {"mse": (0, 2), "reconstruction": (0, 3, 2), "cross_entropy": (0, 4), "binary_cross_entropy": (0, 1)}[name]
    target = torch.zeros(0, dtype=torch.long) if "cross" in name else torch.zeros(shape)
    assert losses.loss_function(name)(torch.zeros(shape), target).shape == (0,)


def test_misfits_and_strangers_are_refused():
    with pytest.raises(DataError, match=r"\[3, 2\].*\[3\]"):
        losses.mse(torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(DataError, match="cross_entropy"):
        losses.cross_entropy(torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(ConfigError, match="did you mean mse"):
        losses.loss_function("mce")
