"""What a simulated population is asked to be: how windows are spread over sites, how sensors differ, what drifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedsite.protocol.errors import ConfigError

MOST_SITES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSpec:
    """How the pooled windows are spread over sites; which of the numbers count depends on `kind`."""

    kind: Literal["natural", "iid", "dirichlet", "shards", "quantity"] = "natural"
    alpha: float = 0.5  # dirichlet, quantity: concentration; small is skewed, 1e6 is nearly even
    labels: int = 2  # shards: shards at each site
    sizes: Literal["dirichlet", "lognormal"] = "lognormal"  # quantity: the law of the sites' sizes
    sigma: float = 1.0  # quantity, lognormal: deviation of the logarithm of a site's size
    minimum: int = 1  # training windows at every site at least
    by: Literal["auto", "label", "entity", "cluster"] = (
        "auto"  # what skew is of; auto: labels, or clusters without them
    )
    bins: int = 10  # classes that a real-valued label, or the inputs' clusters, are cut into
    # entity: all windows of an entity lie at one site; auto: where the run's privacy is per entity
    unit: Literal["auto", "window", "entity"] = "auto"

    def __post_init__(self) -> None:
        _range("alpha", self.alpha, 1e-3, 1e9)
        _range("labels", self.labels, 1, 1000)
        _range("sigma", self.sigma, 0.0, 5.0)
        _range("minimum", self.minimum, 1, 1_000_000)
        _range("bins", self.bins, 2, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftSpec:
    """How a site's sensors differ from the others': x becomes mean + g (x - mean) + o, for each site and channel.

    The mean and the spread are the channel's own over all sites' training windows.
    """

    gain: float = 0.0  # deviation of ln g
    offset: float = 0.0  # deviation of o, in units of the channel's spread

    def __post_init__(self) -> None:
        _range("gain", self.gain, 0.0, 3.0)
        _range("offset", self.offset, 0.0, 100.0)

    @property
    def any(self) -> bool:
        """Whether anything is shifted."""
        return self.gain > 0 or self.offset > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSpec:
    """What changes over the rounds, in phases: phase p (from 0) lasts `every` rounds, the last one for the rest.

    In the first phase nothing has drifted; in the last one all of it, evenly in between. A direction is drawn for each
    site and channel, and kept.
    """

    every: int = 0  # rounds of a phase; 0: nothing drifts
    phases: int = 4
    gain: float = 0.0  # deviation of ln g in the last phase, on top of the shift
    offset: float = 0.0  # deviation of o in the last phase, in units of the channel's spread
    prior: float = 0.0  # share of a site's windows of all labels but one, drawn for it, that are gone in the last phase

    def __post_init__(self) -> None:
        _range("every", self.every, 0, 100_000)
        _range("phases", self.phases, 2, 1000)
        _range("gain", self.gain, 0.0, 3.0)
        _range("offset", self.offset, 0.0, 100.0)
        _range("prior", self.prior, 0.0, 1.0)

    @property
    def any(self) -> bool:
        """Whether anything drifts."""
        return self.every > 0 and max(self.gain, self.offset, self.prior) > 0


def check_sites(sites: int) -> int:
    """A number of simulated sites.

    Raises:
        ConfigError: too few or too many.
    """
    _range("sites", sites, 1, MOST_SITES)
    return sites


def _range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}", allowed=f"{low:g} to {high:g}")
