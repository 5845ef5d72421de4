"""DP-SGD attacked with canaries: the audit must pass as built and fail for each way of breaking the step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedsite.client.work import train_private
from fedsite.models import catalog, clipped_sums
from fedsite.models.losses import loss_function
from fedsite.privacy import accounting, audit, clipping, sampling
from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.sampling import SeededSource
from fedsite.protocol.plan import LocalPlan, PrivacyPlan
from tests.broken_sources import Reused, Scaled

RUNS = 80  # steps of an audit
FEATURES = 60  # independent trials in each of them


class Mean(nn.Module):
    """One weight per feature, output w·x: its squared error has gradients that fit on paper."""

    def __init__(self, features: int = 1) -> None:
        super().__init__()
        self.layer = nn.Linear(features, 1, bias=False)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[:, 0, :])


def formulas(features: int) -> nn.Module:
    """As `Mean`, from the catalog: its gradients come from formulas instead of autograd."""
    module = catalog.build("mlp", {"hidden": []}, time=1, features=features, outputs=1, seed=1)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    assert clipped_sums.supported(module)
    assert not clipped_sums.supported(Mean(features))
    return module


audited = Mean


@pytest.fixture(params=[Mean, formulas])
def _both_ways(request, monkeypatch):
    """The audit attacks each of the two ways to a clipped sum."""
    monkeypatch.setitem(globals(), "audited", request.param)


def releases(records: int, source: sampling.Source, q: float, sigma: float) -> np.ndarray:
    """Noised gradients [RUNS * FEATURES] of single steps from the same weights.

    Each record pulls along a coordinate of its own, so that every coordinate of every step is one independent trial of
    "is its canary there": with records = FEATURES all are, with 1 none (that one pulls nowhere).
    """
    x = 30.0 * np.eye(FEATURES)[:records] if records > 1 else np.zeros((1, FEATURES))
    inputs = torch.from_numpy(x.astype(np.float32))[:, None]
    targets = torch.full((records, 1), 30.0)
    local = LocalPlan(steps=1, sampling_rate=q)
    privacy = PrivacyPlan(mode="sample", noise_multiplier=sigma, batch=1.0)
    module, criterion = audited(FEATURES), loss_function("mse")
    with train_private.gradients(
        module, inputs, targets, np.arange(records), criterion, local, privacy, source
    ) as step:
        return np.concatenate([step()[0][0].numpy()[0] for _ in range(RUNS)])


def lower_bound(make_source, q: float, sigma: float, delta: float = 0.01) -> tuple[float, float]:
    """Claimed ε, and what an attacker can prove."""
    without, with_canary = releases(1, make_source(0), q, sigma), releases(FEATURES, make_source(1), q, sigma)
    claim = accounting.epsilon([accounting.Spend(noise_multiplier=sigma, sampling_rate=q)], delta)
    return claim, audit.epsilon_lower_bound(without, with_canary, delta)


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize(("q", "sigma"), [(1.0, 2.0), (0.1, 0.8)])
def test_the_audit_finds_nothing_wrong_as_built(q, sigma):
    claim, shown = lower_bound(SeededSource, q, sigma)
    assert shown <= claim


@pytest.mark.usefixtures("_both_ways")
def test_the_audit_catches_half_the_noise():
    claim, shown = lower_bound(lambda seed: Scaled(0.5, SeededSource(seed)), 1.0, 2.0)
    assert shown > claim


@pytest.mark.usefixtures("_both_ways")
def test_the_audit_catches_missing_clipping(monkeypatch):
    monkeypatch.setattr(clipping, "factors", lambda norms, bound: np.ones_like(norms))
    claim, shown = lower_bound(SeededSource, 1.0, 2.0)
    assert shown > claim


@pytest.mark.usefixtures("_both_ways")
def test_the_audit_catches_fixed_batches(monkeypatch):
    monkeypatch.setattr(train_private.sampling, "poisson", lambda n, q, source: np.arange(n, dtype=np.int64))
    claim, shown = lower_bound(SeededSource, 0.1, 0.8)
    assert shown > claim


@pytest.mark.usefixtures("_both_ways")
def test_the_audit_catches_a_reused_seed():
    """The attacker subtracts an earlier answer on data without the canary: only reused noise cancels."""
    found = {}
    for name, make_source in (("fresh", SeededSource), ("reused", lambda _: Reused())):
        earlier, without = (releases(1, make_source(number), 1.0, 2.0) for number in (2, 3))
        with_canary = releases(FEATURES, make_source(4), 1.0, 2.0)
        found[name] = audit.epsilon_lower_bound(without - earlier, with_canary - earlier, 0.01)
    claim = accounting.epsilon([accounting.Spend(noise_multiplier=2.0)], 0.01)
    assert found["fresh"] <= claim < found["reused"]


def test_the_audit_needs_enough_runs():
    with pytest.raises(PrivacyError, match="runs"):
        audit.epsilon_lower_bound(np.zeros(10), np.ones(100), 0.01)
