"""How a chunk ends, on numbers that fit on paper: control variates, the clip of a whole update, gains, weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsite.client.work import noise as production
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import PrivacyPlan, SitePrivacyPlan
from fedsite.simulations.vectorised.controls import Controls
from fedsite.simulations.vectorised.executor import Order, finish, fused
from fedsite.simulations.vectorised.job import Job
from fedsite.simulations.vectorised.schedule import Chunk
from fedsite.simulations.vectorised.sums import Sum
from tests.simulated_jobs import job, population, secured

PEOPLE = population("value", (2, 6))
CLIPPED = PrivacyPlan(mode="site", site=SitePrivacyPlan(clip=1.0, noise_multiplier=1.0))


def finished(deltas: list[list[float]], work: Job, order: Order, gains: list[float] | None = None) -> list[float]:
    """The mean of the updates of sites 0 and 1, of two numbers each."""
    given = None if gains is None else np.array(gains, np.float32)
    chunk, total = Chunk(round=1, sites=np.arange(2), gains=given), Sum.empty(2)
    flat = torch.tensor(deltas)
    finish([flat[:, :1], flat[:, 1:]], work, PEOPLE, order, chunk, total)
    found: list[float] = np.round(total.mean(), 6).tolist()
    return found


def test_sites_weigh_their_windows_where_these_are_public() -> None:
    order = Order(weights={})
    assert fused(job(), order, Chunk(round=1, sites=np.arange(2)))
    assert finished([[4.0, 8.0], [0.0, 4.0]], job(), order) == [1.0, 5.0]


def test_a_whole_update_is_clipped_as_a_site_clips_it() -> None:
    # Of (3, 4) the norm is 5, of (0, 0.5) below 1; the mean is of sites. Longer than the grid is not diverged here.
    assert finished([[3.0, 4.0], [0.0, 0.5]], secured(CLIPPED), Order(weights={})) == [0.3, 0.65]
    assert finished([[300.0, 400.0], [0.0, 0.5]], secured(CLIPPED), Order(weights={})) == [0.3, 0.65]
    assert production.clipped(np.array([300.0, 400.0]), 1.0).tolist() == pytest.approx([0.6, 0.8])
    with pytest.raises(ConfigError, match="diverged"):
        finished([[float("nan"), 4.0], [0.0, 0.5]], secured(CLIPPED), Order(weights={}))


def test_gains_multiply_what_is_sent_up_to_what_can_be_sent() -> None:
    order, deltas = Order(weights={}), [[1.0, 2.0], [1.0, 1.0]]
    assert finished(deltas, job(), order, [-1.0, 0.0]) == [-0.25, -0.5]
    # Under secure aggregation no coordinate counts for more than 4.
    work = dataclasses.replace(secured(), privacy=PrivacyPlan())
    assert finished(deltas, work, order, [-3.0, 0.0]) == [-0.75, -1.0]


def test_control_variates_follow_the_paper(tmp_path: Path) -> None:
    # Four steps at rate 0.1: c_i' = c_i - c - δ / 0.4.
    kept = Controls.create(tmp_path / "c", sites=2, numbers=2)
    kept.write(np.array([0]), np.array([[3.0, 0.0]], np.float32))
    order = Order(weights={}, control=np.array([1.0, 2.0], np.float32), controls=kept)
    # Every site weighs 1; a gain is what a poisoner sends, its own variate stays honest.
    assert finished([[0.4, -0.8], [0.0, 0.4]], job(), order, [1.0, -1.0]) == [0.2, -0.6]
    assert kept.rows(np.arange(2)) == pytest.approx(np.array([[1.0, 0.0], [-1.0, -3.0]]))


def test_sites_that_stay_apart_have_a_row_each() -> None:
    chunk, total = Chunk(round=1, sites=np.arange(2), apart=True), Sum.empty(2, apart=2)
    finish([torch.tensor([[1.0, 2.0], [4.0, 0.5]])], job(), PEOPLE, Order(weights={}), chunk, total)
    found = total.parts(np.array([2, 6]))
    assert [(own.mean().tolist(), own.weight, own.sites) for own in found] == [([1, 2], 2, 1), ([4, 0.5], 6, 1)]
    assert (total.weight, total.sites) == (8, 2)
    assert Sum.empty(2).parts(np.array([1]))[0].total.shape == (2,)
