"""The report of a federated job as one versioned document; docs/report.md describes each field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fedsite.protocol import documents, shape
from fedsite.protocol.errors import DocumentError

SCHEMA = "fedsite.report/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The task's figure of merit on all sites' holdouts together, exact (the demo owns every site's data)."""

    name: str
    better: str  # lower or higher
    unit: str
    global_: float | None  # the federated model, fp32 ("global" in the document)
    central: float | None  # one model on pooled data, same model and budget of steps, no privacy
    local_only: float | None  # mean over sites of a model trained at that site alone, on everybody's holdout
    int8: float | None  # the delivered model, scored by the device's runtime
    initial: float | None = None  # the model the run started from
    local_only_own: float | None = None  # the same local models, each on its own site's holdout
    local_only_best: float | None = None  # the best single site's model on everybody's holdout


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteClaim:
    """What the noise in the sums promises one whole site; a claim of its own, never added to the other."""

    adjacency: str
    delta: float
    epsilon: float  # largest of any site
    mechanism: str
    honest: int  # sites that must have added their part of the noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """The claim of each site's own noise, and that of the sums; without both nothing is private and no ε is printed."""

    mode: str  # none, sample, site, both
    unit: str
    adjacency: str
    delta: float
    epsilon_max: float | None  # largest ε any site spent in this run, all releases composed
    group: int | None = None  # windows that share one reading
    group_epsilon: float | None = None  # ε of that group, when the unit is a window
    site: SiteClaim | None = None
    limits: tuple[str, ...] = ()  # what the figures do not cover


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of all secure sums of the run together."""

    name: str  # advertise, share, mask, confirm, unmask
    seconds: float
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Secagg:
    """What the server learned, and what that took; figures over every sum of the run."""

    opened: int  # sums the server learned
    failed: int  # sums that nobody can open
    survivors: int  # sites in the smallest opened sum
    colluding: int  # sites that may side with a lying server
    groups: int
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One site of the demo; per-site figures are the researcher's own here, and leave no real site."""

    name: str
    windows: int
    outcome: str
    epsilon: float | None
    metric: float | None  # the federated model on this site's holdout
    local_only: float | None = None  # this site's own model on its own holdout
    central: float | None = None
    int8: float | None = None
    verified: bool = False
    latency_ms: float | None = None  # median per window on the device runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round as it ended."""

    number: int
    outcome: str
    participants: int
    seconds: float
    bytes_up: int
    bytes_down: int
    metric: float | None  # of the model this round produced, exact, on all holdouts; None where the round made none
    federated: float | None = None  # what the centre saw of it: federated evaluation, noised under privacy
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Where time and bytes went."""

    name: str
    seconds: float
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The signed int8 model."""

    version: str
    bytes: int
    fp32_bytes: int
    verified_sites: int
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything the page shows."""

    schema: str = SCHEMA
    schema_version: int = 1
    task: str
    title: str
    run_id: str
    created: str
    seconds: float  # the federation part: from `server init` to the last verified release
    protection: str
    outcome: str
    parameters: int
    metric: Metric
    privacy: Privacy
    sites: tuple[Site, ...]
    rounds: tuple[Round, ...]
    phases: tuple[Phase, ...]
    secagg: Secagg | None = None  # none where the server saw single updates
    release: Release | None
    release_refused: str = ""  # why there is no release: what the parity gate found
    command: str
    versions: dict[str, str] = field(default_factory=dict)
    cores: int = 0  # of the machine that all of it shared; 0: not told
    plan: dict[str, Any] = field(default_factory=dict)  # fedsite.plan/1; empty in reports of an older fedsite


def encode(report: Report) -> bytes:
    """Canonical JSON; `Metric.global_` is written as `global`."""
    value = shape.plain(report)
    value["metric"]["global"] = value["metric"].pop("global_")
    return documents.canonical(value)


def decode(data: bytes) -> Report:
    """The inverse of `encode`.

    Raises:
        DocumentError: not a report of this schema.
    """
    value = documents.document(data, SCHEMA, limit=64 << 20)
    metric = value.get("metric")
    if not isinstance(metric, dict) or "global" not in metric:
        raise DocumentError("report without metric.global", allowed="a document written by `fedsite demo`")
    value["metric"] = {**{key: item for key, item in metric.items() if key != "global"}, "global_": metric["global"]}
    return shape.read(Report, value)
