"""What a simulation found, as one versioned document (`fedsite.simulation/1`); docs/json.md describes each field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from fedsite.protocol import documents, shape
from fedsite.protocol.errors import DocumentError
from fedsite.simulations.populations.heterogeneity import Heterogeneity

SCHEMA: Final = "fedsite.simulation/1"
MAX_BYTES: Final = 256 << 20  # of a document


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The metric of one model on each site's own holdout; worst and best as the metric has it."""

    sites: int  # with a holdout that can be judged
    worst: float
    p10: float  # the tenth percentile from the worst
    lower: float  # quartiles
    median: float
    upper: float
    best: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float | None], better: str) -> Spread | None:
        """Of the sites' figures; None where no site has one."""
        known = np.array([value for value in values if value is not None], np.float64)
        if not len(known):
            return None
        marks = (0, 10, 25, 50, 75, 100) if better == "higher" else (100, 90, 25, 50, 75, 0)
        worst, p10, lower, median, upper, best = (float(value) for value in np.percentile(known, marks))
        return cls(
            sites=len(known), worst=worst, p10=p10, lower=lower, median=median, upper=upper, best=best,
            deviation=float(known.std()),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The task's figure of merit on all holdouts together, exact: the researcher owns every site's data."""

    name: str
    better: str  # lower or higher
    unit: str
    global_: float | None  # the federated model ("global" in the document)
    central: float | None = None  # one model on pooled data, without privacy
    local_only: float | None = None  # mean over sites of a model that one site trains alone
    local_only_own: float | None = None  # the same models, each on its own site's holdout
    initial: float | None = None  # the model the run started from
    sites: Spread | None = None  # the federated model at each site


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """The claims that the run would make; two claims are two."""

    mode: str
    unit: str | None  # window or entity, of each site's own noise
    delta: float | None
    noise_multiplier: float | None
    site_delta: float | None = None  # of the noise in the sums
    site_noise_multiplier: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of the federation."""

    number: int
    drawn: int  # sites that were asked
    sites: int  # whose update arrived
    weight: int  # windows of these, or their number where windows are private
    seconds: float  # wall, of computing it here
    metric: float | None
    outcome: str = "done"
    predicted_s: float | None = None  # what the fleet would take
    bytes_up: int | None = None  # of all sites
    bytes_down: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What the run would take on real hosts and links."""

    calibration: str  # what was measured
    windows_s: float  # windows that the median site trains in a second
    seconds_per_round: float  # median
    asked: float  # sites, mean by round
    present: float  # whose update was in the model, mean by round
    outcomes: dict[str, int]  # rounds by outcome
    ended_early: bool  # production would have given up: too many abandoned rounds in a row
    bytes_up: float  # of all sites and rounds
    bytes_down: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """One run."""

    schema: Literal["fedsite.simulation/1"] = SCHEMA
    task: str
    title: str
    created: str
    outcome: str  # completed
    engine: str
    executor: str
    passed_over: dict[str, str] = field(default_factory=dict)  # faster executors, and why they could not do it
    device: str = "cpu"
    workers: int = 1
    sites: int
    cohort: int
    windows: int  # of training, at all sites
    strategy: str
    protection: str
    model: str
    parameters: int
    privacy: Privacy
    rounds: int
    seconds_per_round: float  # median
    seconds: float  # of all rounds, evaluation not counted
    metric: Metric
    epsilon_max: float | None  # largest that a site spent, per window or entity
    epsilon_claimed: float | None = None  # of a site that takes part in everything: what the plan promises
    site_epsilon: float | None = None  # largest per site, in the sums
    site_epsilon_claimed: float | None = None
    bytes_up_per_site_round: float
    bytes_down_per_site_round: float
    predicted_minutes: float | None
    fleet: Fleet | None = None  # what was foreseen, and by what
    heterogeneity: Heterogeneity | None = None  # how different the sites were, before anything drifted
    seeds: tuple[int, ...]
    digest: str  # SHA-256 of the final weights
    plan_hash: str
    recipe: str  # the same for every seed
    data_hash: str  # of all training windows and labels
    curve: tuple[Round, ...] = ()
    attack: dict[str, Any] | None = None
    audit: dict[str, Any] | None = None
    command: str
    overrides: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)


def encode(found: Simulation) -> bytes:
    """Canonical JSON; `Metric.global_` is written as `global`."""
    return documents.canonical(value(found))


def value(found: Simulation) -> dict[str, Any]:
    """The document as plain JSON values."""
    plain: dict[str, Any] = shape.plain(found)
    plain["metric"]["global"] = plain["metric"].pop("global_")
    return plain


def decode(data: bytes) -> Simulation:
    """The inverse of `encode`.

    Raises:
        DocumentError: not a document of this schema.
    """
    return of(documents.document(data, SCHEMA, limit=MAX_BYTES))


def of(document: dict[str, Any]) -> Simulation:
    """Of the document's value.

    Raises:
        DocumentError: keys or values of another schema.
    """
    metric = document.get("metric")
    if not isinstance(metric, dict) or "global" not in metric:
        raise DocumentError("simulation without metric.global", allowed="a document written by `fedsite simulate`")
    kept = {key: item for key, item in metric.items() if key != "global"}
    return shape.read(Simulation, {**document, "metric": {**kept, "global_": metric["global"]}})
