"""Noise in sums is audited at real sites and in the engine: it passes as built, and each way of breaking it shows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fedsite.client.work import noise
from fedsite.privacy import integer_noise
from fedsite.privacy.integer_noise import Mechanism
from fedsite.privacy.sampling import SeededSource, Source
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import PrivacyPlan, SitePrivacyPlan
from fedsite.simulations.audits import sums
from fedsite.simulations.audits.audit import Audited
from fedsite.simulations.audits.spec import ENGINE, FORMULAS, AuditSpec
from fedsite.simulations.vectorised import executor, groups, randomness
from fedsite.simulations.vectorised.randomness import Purpose

PATHS = [pytest.param(FORMULAS, marks=pytest.mark.slow), ENGINE]
NOISED = PrivacyPlan(mode="site", site=SitePrivacyPlan(clip=0.5, noise_multiplier=1.5))


def audited(path: str, *, control: bool = False) -> Audited:
    asked = AuditSpec(runs=40, canaries=80, path=path, control=control)
    return sums.audit(NOISED, 2, asked, executor="batched")


@pytest.mark.parametrize("path", PATHS)
def test_a_true_claim_survives_and_half_the_noise_would_be_noticed(path: str) -> None:
    found = audited(path, control=True)
    assert not found.flagged
    assert found.control
    assert found.unit == "site"
    assert 0.0 < found.epsilon_lower < found.epsilon_claimed


@pytest.mark.slow
@pytest.mark.parametrize("path", [FORMULAS, ENGINE])
def test_missing_clipping_is_noticed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "clipped", lambda values, bound: values)
    monkeypatch.setattr(noise.distributed, "rounded_norm", lambda clip, scale, size: 1e12)
    monkeypatch.setattr(executor.clipping, "factors", lambda norms, bound: np.ones_like(norms))
    assert audited(path).flagged


@pytest.mark.slow
@pytest.mark.parametrize("path", [FORMULAS, ENGINE])
def test_reused_noise_is_noticed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = randomness.key

    def reused(seed: int, purpose: Purpose, *counters: int | np.ndarray) -> np.ndarray:
        if purpose is not Purpose.SUM_NOISE:
            return drawn(seed, purpose, *counters)
        return drawn(seed, purpose, 0, 0, *counters[2:])

    class Table:
        """The noise of every site in every sum begins at the same place."""

        def __init__(self, mechanism: Mechanism, variance: float) -> None:
            self.inner = integer_noise.table(mechanism, variance)

        def draw(self, size: int, source: Source) -> np.ndarray:
            return self.inner.draw(size, SeededSource(11))

    monkeypatch.setattr(groups.randomness, "key", reused)
    monkeypatch.setattr(noise, "integer_noise", SimpleNamespace(table=Table))
    assert audited(path).flagged


def test_what_cannot_be_audited_is_refused() -> None:
    with pytest.raises(ConfigError, match="privacy none"):
        sums.audit(PrivacyPlan(), 1, AuditSpec(runs=20))
    with pytest.raises(ConfigError, match="over 2 sites"):
        sums.audit(NOISED, 1, AuditSpec(runs=20, canaries=2))
