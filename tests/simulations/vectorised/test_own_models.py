"""A researcher's own model: it trains side by side where it can be traced, and in the loop, with the reason, else."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedsite.models import catalog
from fedsite.simulations.vectorised import choice
from fedsite.simulations.vectorised.choice import Chosen
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Job, Layout
from fedsite.simulations.vectorised.schedule import Chunk
from fedsite.simulations.vectorised.sums import Sum
from tests.simulated_jobs import ENTITY, job, population, weights


class Attentive(nn.Module):
    """Attention over time, with a parameter of its own and nothing that fedsite ships."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """Settings."""

        width: int = 6

    def __init__(self, settings: Options, *, time: int, features: int, outputs: int) -> None:
        super().__init__()
        self.queries = nn.Linear(features, 3 * settings.width)
        self.scale = nn.Parameter(torch.ones(time, 1))
        self.norm = nn.LayerNorm(settings.width)
        self.head = nn.Linear(settings.width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.queries(x * self.scale).chunk(3, -1)
        seen = torch.softmax(query @ key.mT / key.shape[-1] ** 0.5, -1) @ value
        found: Tensor = self.head(torch.nn.functional.gelu(self.norm(seen.mean(1))))
        return found


class Deciding(Attentive):
    """Its path depends on what it reads."""

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        return found if found.sum() > 0 else -found


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a package had brought both."""
    found = [EntryPoint(kind.__name__.lower(), f"{__name__}:{kind.__name__}", catalog.GROUP) for kind in OWN]
    monkeypatch.setattr(catalog, "entry_points", lambda group: found)


OWN = (Attentive, Deciding)


def chosen(work: Job, wanted: str = choice.AUTO) -> Chosen:
    """Who trains it."""
    return choice.choose(work, population("value"), wanted)


def trained(work: Job, wanted: str) -> np.ndarray:
    """Everybody's mean update in round 2."""
    total = Sum.empty(Layout.of(work.module()).size)
    order = Order(weights=weights(work))
    chosen(work, wanted).executor.update(order, Chunk(round=2, sites=np.array([2, 4, 0, 3, 1])), total)
    return total.mean()


@pytest.mark.parametrize("privacy", [None, ENTITY])
def test_a_model_of_ones_own_trains_side_by_side(privacy: Any) -> None:
    work = job(model="attentive", options={"width": 4}, local={"momentum": 0.9}, privacy=privacy)
    found = chosen(work)
    assert found.executor.name == "vmap"
    assert {name for name, _ in found.passed_over} >= {"compiled", "batched"}
    wanted = trained(work, "loop")
    assert np.linalg.norm(trained(work, "vmap") - wanted) <= 1e-5 * np.linalg.norm(wanted)


def test_one_that_decides_by_its_data_is_looped_and_the_reason_told() -> None:
    found = chosen(job(model="deciding", options={}))
    assert found.executor.name == "loop"
    assert "torch.func cannot trace the model" in dict(found.passed_over)["vmap"]
