"""The audit attacks what trains: it must pass as built, and notice each way of breaking it."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from fedsite.privacy import clipping
from fedsite.privacy.sampling import SeededSource
from fedsite.protocol import documents, shape
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import LocalPlan, PrivacyPlan
from fedsite.simulations.audits.audit import Audited, audit
from fedsite.simulations.audits.sites import Sources
from fedsite.simulations.audits.spec import ENGINE, FORMULAS, HOOKS, AuditSpec
from fedsite.simulations.vectorised import batched, randomness, schedule
from fedsite.simulations.vectorised.job import Job
from fedsite.simulations.vectorised.randomness import Purpose
from tests.broken_sources import KeptBatch, Reused, Scaled

ALL = LocalPlan(steps=1, sampling_rate=1.0)
SOME = LocalPlan(steps=10, sampling_rate=0.3)
ROUNDS = 2
PATHS = [*(pytest.param(path, marks=pytest.mark.slow) for path in (FORMULAS, HOOKS)), ENGINE]


NOISE = {1.0: 1.533, 0.3: 1.772}  # noise multipliers by sampling rate: ε 4 at δ 1e-5 for all rounds


def private(local: LocalPlan, unit: str = "window") -> PrivacyPlan:
    sigma = NOISE[local.sampling_rate]
    return PrivacyPlan(mode="sample", unit=unit, noise_multiplier=sigma, batch=8.0)  # type: ignore[arg-type]


def audited(
    path: str,
    local: LocalPlan = ALL,
    *,
    sources: Sources | None = None,
    unit: str = "window",
    executor: str = "batched",
    runs: int = 20,
    control: bool = False,
) -> Audited:
    asked = AuditSpec(runs=runs, canaries=200, path=path, control=control)
    return audit(local, private(local, unit), ROUNDS, asked, executor=executor, sources=sources)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("local", [ALL, SOME], ids=["all", "some"])
def test_a_true_claim_survives_and_half_the_noise_would_be_noticed(path: str, local: LocalPlan) -> None:
    found = audited(path, local, control=True)
    assert not found.flagged
    assert found.control
    assert 0.0 < found.epsilon_lower < found.epsilon_claimed == pytest.approx(4.0, abs=0.05)
    assert found.right > 0.6 * found.guesses > 0
    assert "half the noise would be noticed" in str(found)
    assert shape.read(Audited, json.loads(documents.canonical(found.plain))) == found


@pytest.mark.parametrize("path", PATHS)
def test_half_the_noise_is_noticed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Job.deviation
    monkeypatch.setattr(Job, "deviation", lambda job, numbers: whole(job, numbers) / 2)
    found = audited(path, sources=lambda number: Scaled(0.5, SeededSource(number)))
    assert found.flagged
    assert "FALSE" in str(found)


@pytest.mark.parametrize("path", PATHS)
def test_missing_clipping_is_noticed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipping, "factors", lambda norms, bound: np.ones_like(norms))
    monkeypatch.setattr(batched, "limits", lambda square, clip: square.new_ones(square.shape))
    assert audited(path).flagged


@pytest.mark.parametrize("path", PATHS)
def test_a_batch_that_is_kept_is_noticed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn once for a training, and used in every step of it."""
    drawn = randomness.key

    def kept(seed: int, purpose: Purpose, *counters: int | np.ndarray) -> np.ndarray:
        if purpose is not Purpose.BATCH:
            return drawn(seed, purpose, *counters)
        sites = counters[1]
        return np.broadcast_to(drawn(seed, purpose, 0, sites), np.broadcast_shapes(*map(np.shape, counters)))

    monkeypatch.setattr(schedule.randomness, "key", kept)
    assert audited(path, SOME, sources=KeptBatch, runs=30).flagged


@pytest.mark.parametrize("path", PATHS)
def test_reused_noise_is_noticed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed for every draw: two models sent in turn take the noise out."""
    drawn = randomness.key

    def reused(seed: int, purpose: Purpose, *counters: int | np.ndarray) -> np.ndarray:
        if purpose is not Purpose.NOISE:
            return drawn(seed, purpose, *counters)
        return np.broadcast_to(drawn(seed, purpose, 0), np.broadcast_shapes((1,), *map(np.shape, counters)))

    monkeypatch.setattr(randomness, "key", reused)
    assert audited(path, sources=lambda _: Reused()).flagged


@pytest.mark.parametrize("path", [pytest.param(FORMULAS, marks=pytest.mark.slow), ENGINE])
def test_an_entity_is_one_record_of_several_windows(path: str) -> None:
    assert not audited(path, unit="entity").flagged
    broken: Callable[[int], Scaled] = lambda number: Scaled(0.5, SeededSource(number))  # noqa: E731
    assert path == ENGINE or audited(path, unit="entity", sources=broken).flagged


def test_what_cannot_be_audited_is_refused() -> None:
    with pytest.raises(ConfigError, match="privacy none"):
        audit(ALL, PrivacyPlan(), 1, AuditSpec(runs=20))
    with pytest.raises(ConfigError, match="0 runs"):
        audit(ALL, private(ALL), 1, AuditSpec())
    with pytest.raises(ConfigError, match="runs is 3"):
        AuditSpec(runs=3)
    with pytest.raises(ConfigError, match="path is"):
        AuditSpec(path="guess")
