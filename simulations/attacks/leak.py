"""What a server sees of one site's windows under each protection, attacked by gradient inversion and measured.

`none` and `sealed` are one view: sealing hides an update from the network, not from the process that opens it. Under
`secagg` the server sees the mean over a cohort; under `privacy=sample` every step is clipped and noised at the site.
The attacker is helped: it knows the weights, the learning rate and the labels, the victim takes one step on all of its
windows (`local.sampling_rate` 1), and of all candidates the one closest to a true window is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fedsite.client.work import train
from fedsite.models.losses import loss_function
from fedsite.privacy.sampling import SeededSource
from fedsite.protocol import shape
from fedsite.protocol.plan import LocalPlan, PrivacyPlan
from fedsite.simulations.attacks import inversion
from fedsite.simulations.attacks.inversion import Floats
from fedsite.telemetry.dataset import Windows

if TYPE_CHECKING:
    from torch import nn

RECOGNISED: Final = 0.1  # of the error of the guess that knows nothing: what is below shows the window


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """A window as it was, and as the attacker has it."""

    view: str  # what was seen, in words
    attack: str  # formula or search
    sites: int  # in what was seen
    windows: int  # in what was seen
    error: float  # mean squared, in the model's own units
    baseline: float  # that of the mean of all windows, which needs no attack
    psnr: float  # dB, beside the window's own range

    @property
    def shown(self) -> bool:
        """Whether the window can be recognised."""
        return self.error < RECOGNISED * self.baseline

    @property
    def plain(self) -> dict[str, Any]:
        """JSON value."""
        found: dict[str, Any] = shape.plain(self) | {"shown": self.shown}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a server learns in one round: the mean of some sites' gradients, each noised or not."""

    name: str
    sites: int = 1
    privacy: PrivacyPlan = field(default_factory=PrivacyPlan)


def seen(module: nn.Module, sites: Sequence[Windows], loss: str, view: View, seed: int) -> list[Floats]:
    """The gradient of each trained parameter, as the mean of the sites' updates shows it.

    Args:
        module: with the weights that all sites start from; left as it was.
        sites: normalised windows of each site whose update is in the mean.
        loss: a name of models.losses.
        view: how steps are noised.
        seed: of the noise.
    """
    import torch

    local = LocalPlan(steps=1, sampling_rate=1.0, optimizer="sgd", learning_rate=1.0)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    total = [np.zeros(parameter.shape) for parameter in trained]
    for number, windows in enumerate(sites):
        source = SeededSource((seed, number))
        train.train(module, windows, local, view.privacy, loss, round_number=1, rng_seed=None, source=source)
        with torch.no_grad():
            for place, (parameter, old) in enumerate(zip(trained, before, strict=True)):
                total[place] += (old - parameter).numpy().astype(np.float64) / len(sites)
                parameter.copy_(old)
    return total


def by_formula(module: nn.Module, gradient: Sequence[Floats], window: tuple[int, int]) -> Floats:
    """Candidates [candidate, time, feature] from the first layer, which has to be dense and read the whole window."""
    return inversion.quotients(gradient[0], gradient[1]).reshape(-1, *window)


def by_search(
    module: nn.Module, loss: str, gradient: Sequence[Floats], windows: Windows, *, iterations: int, seed: int
) -> Floats:
    """Candidates [candidate, time, feature]: as many as there are windows, with their labels known."""
    target = windows.x if loss == "reconstruction" else windows.y
    size = windows.x.shape
    return inversion.search(module, loss_function(loss), gradient, target, size, iterations=iterations, seed=seed)


def measured(
    view: View, attack: str, sites: Sequence[Windows], candidates: Floats, mean: NDArray[np.floating]
) -> tuple[Leak, Floats, NDArray[np.floating]]:
    """How close the best candidate comes to any window of the first site.

    Args:
        view: what was seen.
        attack: formula or search.
        sites: whose windows went in; the first is the victim.
        candidates: [candidate, time, feature].
        mean: the guess that knows nothing [time, feature].

    Returns:
        The figures, the candidate and the window it shows.
    """
    truth = sites[0].x.astype(np.float64)
    errors = ((candidates[:, None] - truth[None]) ** 2).mean((2, 3))
    candidate, place = np.unravel_index(int(np.argmin(errors)), errors.shape)
    window = truth[place]
    spread = max(float(window.max() - window.min()), 1e-12)
    error = float(errors[candidate, place])
    found = Leak(
        view=view.name,
        attack=attack,
        sites=len(sites),
        windows=sum(len(site) for site in sites),
        error=error,
        baseline=float(((mean - window) ** 2).mean()),
        psnr=float(10.0 * np.log10(spread**2 / max(error, 1e-20))),
    )
    return found, candidates[candidate], window
