"""What the formulas of stacked dense layers share with a real site's: slopes of the loss, and limits of a clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedsite.models import loss_gradients, losses
from fedsite.privacy import clipping
from fedsite.simulations.vectorised.batched import limits


def test_limits_are_a_sites_clipping_factors() -> None:
    norms = np.array([0.0, 1e-20, 0.49, 0.5, 0.51, 3.0, 1e18, np.inf, np.nan], np.float32)
    found = limits(torch.from_numpy(norms).square(), 0.5).numpy()
    assert found == pytest.approx(clipping.factors(norms, 0.5), rel=1e-6)
    assert limits(torch.tensor([-1e-12]), 0.5).item() == 1.0  # a sum of products that cancelled


@pytest.mark.parametrize("name", ["mse", "cross_entropy", "binary_cross_entropy"])
def test_slopes_are_the_same_on_every_device(name: str) -> None:
    rng = torch.Generator().manual_seed(1)
    prediction = torch.randn((7, 3), generator=rng)
    target = torch.randint(0, 3, (7,), generator=rng) if name == "cross_entropy" else torch.rand((7, 3), generator=rng)
    criterion = losses.loss_function(name)
    by_formula, by_autograd = (
        loss_gradients.of_tensors(criterion, device)(prediction, target) for device in ("cpu", "cuda")
    )
    assert by_formula.dtype == torch.float32
    assert torch.allclose(by_formula, by_autograd, atol=1e-7)
