"""Canaries at a site: trained by what trains at real sites, or by an executor of the vectorised engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from fedsite.client.work import train
from fedsite.privacy.sampling import Source
from fedsite.protocol.plan import ModelPlan
from fedsite.simulations.audits import spec
from fedsite.simulations.audits.canaries import BIAS, WEIGHT, Bools, Floats, Game
from fedsite.simulations.vectorised import choice
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Job
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.schedule import Chunk
from fedsite.simulations.vectorised.sums import Sum

if TYPE_CHECKING:
    from torch import nn

Sources = Callable[[int], Source]  # the randomness of a training's site, by the training's number
LAYER: Final = ModelPlan(name="mlp", options={"hidden": []})
_HELD: Final = 1 << 26  # numbers of canaries' windows held at once (256 MiB)


def production(game: Game, there: Bools, path: str, sources: Sources) -> Floats:
    """What each round of each training added to the weights [run, R, M], by `client/work/train.py`.

    Args:
        game: what is trained.
        there: which canaries are in the data [run, M].
        path: `formulas` for gradients of a model from the catalog, `hooks` for those of any other.
        sources: each training's randomness.
    """
    module = _module(game, path)
    return np.stack([_trained(game, module, row, sources(number)) for number, row in enumerate(there)])


def _trained(game: Game, module: nn.Module, there: Bools, source: Source) -> Floats:
    import torch

    windows, weight = game.windows(there), next(module.parameters())
    found = np.empty((game.rounds, game.canaries))
    for place, sign in enumerate(game.signs):
        start = game.weight(sign)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(start if parameter is weight else 0.0)
        train.train(
            module, windows, game.local, game.privacy, "mse", round_number=place + 1, rng_seed=None, source=source
        )
        found[place] = weight.detach().numpy()[0] - np.float32(start)
    return found


def _module(game: Game, path: str) -> nn.Module:
    """One dense layer; for `hooks` one that is not from the catalog, so that nothing knows its formulas."""
    import torch

    if path == spec.FORMULAS:
        return _job(game, 0).module()

    class Layer(torch.nn.Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(features, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.layer(x[:, 0, :])
            return found

    return Layer(game.canaries)


def engine(game: Game, there: Bools, executor: str, seed: int) -> tuple[Floats, str]:
    """What each round added to the weights of each site [site, R, M], one site a training, and the executor's name.

    Raises:
        ConfigError: the executor cannot do this.
    """
    found, name = np.empty((len(there), game.rounds, game.canaries)), ""
    each = max(1, _HELD // game.canaries**2)
    for start in range(0, len(there), each):  # sites of one population are drawn apart; so are populations, by seed
        part = slice(start, start + each)
        name = _together(game, there[part], executor, seed + start, found[part])
    return found, name


def _together(game: Game, there: Bools, executor: str, seed: int, into: Floats) -> str:
    population = Population.of([game.windows(row) for row in there])
    chosen = choice.choose(_job(game, seed), population, executor).executor
    for place, sign in enumerate(game.signs):
        start = np.full((1, game.canaries), game.weight(sign), np.float32)
        order = Order(weights={WEIGHT: start, BIAS: np.zeros(1, np.float32)})
        for site in range(len(there)):
            total = Sum.empty(game.canaries + 1)
            chosen.update(order, Chunk(round=place + 1, sites=np.array([site])), total)
            into[site, place] = total.mean()[: game.canaries]
    return chosen.name


def halved(game: Game) -> Game:
    """The same with half the noise, and the learning rate as it was."""
    noise = game.privacy.noise_multiplier / 2.0
    return replace(game, privacy=replace(game.privacy, noise_multiplier=noise))


def _job(game: Game, seed: int) -> Job:
    return Job(
        model=LAYER,
        time=1,
        features=game.canaries,
        outputs=1,
        loss="mse",
        local=game.local,
        privacy=game.privacy,
        seed=seed,
    )
