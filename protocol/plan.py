"""RoundPlan: everything a site is asked to agree to, as one document. Its hash is bound into every signature."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

from fedsite.protocol import documents, shape
from fedsite.protocol.errors import DocumentError
from fedsite.protocol.secagg.manifest import SITES_MAX, Terms

SCHEMA: Final = "fedsite.plan/1"
SITE: Final = "site"  # the unit of noise in sums
LONGEST_S: Final = 14 * 86_400  # of a round: its messages may be carried by people
_OF_ONE_RUN: Final = ("run_id", "created", "seed", "cost")
SMALL_NOISES: Final = ("statistics_noise", "evaluation_noise", "calibration_noise")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPlan:
    """What a site does with the model in one round."""

    steps: int  # optimizer steps per round
    sampling_rate: float  # q: each privacy unit joins a step's batch with this probability (Poisson)
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal: float = 0.0  # FedProx μ; 0 is FedAvg
    learning_rate_decay: float = 1.0  # learning rate of round r is learning_rate * decay^(r-1)

    def __post_init__(self) -> None:
        _range("steps", self.steps, 1, 1_000_000)
        _range("sampling_rate", self.sampling_rate, 1e-9, 1.0)
        _range("learning_rate", self.learning_rate, 0.0, 1e3)
        _range("momentum", self.momentum, 0.0, 0.9999)
        _range("weight_decay", self.weight_decay, 0.0, 1e3)
        _range("proximal", self.proximal, 0.0, 1e6)
        _range("learning_rate_decay", self.learning_rate_decay, 0.01, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePrivacyPlan:
    """Noise in the sum over the sites: the unit is a whole site, its update clipped as one vector.

    Neighbouring inputs differ in one site's values, which are zero in one of them; who takes part is public. The claim
    holds against everybody who sees what is released, together with `protection.terms.colluding` sites.
    """

    epsilon: float | None = None  # target for the whole run
    delta: float = 1e-5
    adjacency: Literal["zero-out"] = "zero-out"
    clip: float = 1.0  # C, L2 norm of one site's whole update
    noise_multiplier: float = 0.0  # σ of the noise in the sum over `clip`, solved from epsilon when the plan is made
    mechanism: Literal["skellam", "discrete-gaussian"] = "skellam"

    def __post_init__(self) -> None:
        if self.epsilon is not None:
            _range("epsilon", self.epsilon, 1e-6, 1e6)
        _range("delta", self.delta, 1e-15, 0.1)
        _range("clip", self.clip, 1e-9, 1e9)
        _range("noise_multiplier", self.noise_multiplier, 0.0, 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyMode:
    """Which noise a run has, in a plan and in the settings it is made of."""

    mode: Literal["none", "sample", "site", "both"]

    @property
    def sample_level(self) -> bool:
        """Whether each site noises what it releases by itself."""
        return self.mode in ("sample", "both")

    @property
    def site_level(self) -> bool:
        """Whether every released sum holds noise of all sites."""
        return self.mode in ("site", "both")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPlan(PrivacyMode):
    """Differential privacy, docs/privacy.md: at each site (`sample`), in the sum (`site`), or both. `none` has no ε.

    With `sample` every release of a site is one Gaussian mechanism; a noise multiplier is the noise's standard
    deviation divided by the L2 sensitivity of what it hides, `epsilon` the composition of all of them over the whole
    run. With `site` the multipliers of statistics, evaluation and calibration are those of noise in the sum, a site
    being one unit; with `both` these are not asked. The two are two claims, never one.
    """

    mode: Literal["none", "sample", "site", "both"] = "none"
    unit: Literal["window", "entity"] = "window"  # one record: a window, or all windows of one entity
    adjacency: Literal["add-remove"] = "add-remove"
    epsilon: float | None = None  # target for the whole run
    delta: float = 1e-5
    clip: float = 1.0  # clipping norm of one unit's gradient
    batch: float = 64.0  # divides a step's noised sum: public, because a site's own number of records is private
    noise_multiplier: float = 0.0  # DP-SGD, solved from epsilon when the plan is made
    statistics_noise: float = 0.0  # of the normalisation statistics; 0: schema ranges are used, no data read
    evaluation_noise: float = 0.0  # of one evaluation; 0: no evaluation on private holdouts
    calibration_noise: float = 0.0  # of the int8 calibration histograms; 0: ranges from the weights and schema
    accountant: Literal["prv", "rdp"] = "prv"
    site: SitePrivacyPlan = field(default_factory=SitePrivacyPlan)

    @property
    def units(self) -> tuple[str, ...]:
        """What the run's claims protect, one for each."""
        return ((self.unit,) if self.sample_level else ()) + ((SITE,) if self.site_level else ())

    def claim(self, unit: str) -> PrivacyPlan | SitePrivacyPlan:
        """Where ε and δ of the claim for one of `units` stand."""
        return self.site if unit == SITE else self

    def __post_init__(self) -> None:
        _range("delta", self.delta, 1e-15, 0.1)
        _range("clip", self.clip, 1e-9, 1e9)
        _range("batch", self.batch, 1e-3, 1e9)
        if self.epsilon is not None:
            _range("epsilon", self.epsilon, 1e-6, 1e6)
        _range("noise_multiplier", self.noise_multiplier, 0.0, 1e9)
        for name in SMALL_NOISES:
            _range(name, getattr(self, name), 0.0, 1e9)
            if self.mode == "both" and getattr(self, name) > 0:
                raise DocumentError(
                    f"{name} is {getattr(self, name)} with privacy.mode both",
                    allowed="0: one release would need noise for two claims at once",
                    next_step="privacy=sample or privacy=site, whose statistics, evaluation and calibration have noise",
                )
        if self.sample_level and not self.noise_multiplier > 0:
            raise DocumentError(
                f"noise_multiplier is {self.noise_multiplier}", allowed=f"above 0 when privacy.mode is {self.mode}"
            )
        if self.site_level and not self.site.noise_multiplier > 0:
            raise DocumentError(
                f"site.noise_multiplier is {self.site.noise_multiplier}",
                allowed=f"above 0 when privacy.mode is {self.mode}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsPlan:
    """Bounds of a round: it ends with a named outcome, always."""

    count: int
    minimum: int = 2  # replies below this: abandoned
    goal: int | None = None  # replies wanted; None: every site asked
    over_select: float = 1.0  # asks ceil(goal * over_select) sites
    deadline_s: float = 120.0  # seconds from the first instruction to the last reply counted
    wait_s: float = 60.0  # seconds to wait for `minimum` sites to be online, and to agree where they ask a person
    evaluate_every: int = 1  # rounds between federated evaluations; the last model is always evaluated
    patience: int = 3  # abandoned rounds in a row that end the run

    def __post_init__(self) -> None:
        _range("count", self.count, 1, 100_000)
        _range("minimum", self.minimum, 1, 1_000_000)
        if self.goal is not None and self.goal < self.minimum:
            raise DocumentError(f"goal is {self.goal}", allowed=f"at least rounds.minimum ({self.minimum})")
        _range("over_select", self.over_select, 1.0, 10.0)
        _range("deadline_s", self.deadline_s, 0.1, LONGEST_S)
        _range("wait_s", self.wait_s, 0, LONGEST_S)
        _range("evaluate_every", self.evaluate_every, 1, 100_000)
        _range("patience", self.patience, 1, 1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectionPlan:
    """How an update is hidden on its way. `none` needs the site's explicit opt-in.

    `secagg`: the server sees the sum over at least `terms.min_survivors` sites, never one site's values. `sealed`: the
    server alone sees single updates.
    """

    mode: Literal["secagg", "sealed", "none"] = "secagg"
    terms: Terms = field(default_factory=Terms)
    sites: int = 64  # the most that are summed: the fixed-point scale leaves room for so many
    examples_max: int = 1 << 16  # windows that give weight 1; 2^16 keeps every smaller count exact
    bound: float = 4.0  # of one coordinate of a site's update; larger ones are clipped
    groups: int = 1  # sums of their own that a round is cut into, for strategies that compare updates
    stage_s: float = 30.0  # seconds for a stage that reads no data
    retries: int = 1  # times a sum that nobody has opened yet is tried again, with fresh keys

    def __post_init__(self) -> None:
        _range("sites", self.sites, self.terms.min_cohort, SITES_MAX)
        _range("examples_max", self.examples_max, 1, 1 << 16)
        _range("bound", self.bound, 1e-9, 1e9)
        _range("groups", self.groups, 1, 1000)
        _range("stage_s", self.stage_s, 0.1, 86_400)
        _range("retries", self.retries, 0, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyPlan:
    """How updates become the next global model."""

    name: str = "fedavg"
    options: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """The architecture and what of it is trained."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)  # architecture's own settings (hidden sizes, channels, …)
    trainable: str = "all"  # all, head, or a glob over parameter names
    init_hash: str = ""  # SHA-256 (hex) of the canonical weights the run starts from
    parameters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePlan:
    """The int8 model made of the result."""

    enabled: bool = True
    parity: float = 0.02  # largest relative loss of the metric allowed between fp32 and int8


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPlan:
    """What one site pays, so that it can say no."""

    bytes_down: int = 0  # per round
    bytes_up: int = 0
    epsilon: float | None = None  # whole run, composed, per window or entity
    site_epsilon: float | None = None  # the same per site, in the sums


@dataclass(frozen=True, kw_only=True)
class RoundPlan:
    """One federated run, as both ends validate it."""

    schema: Literal["fedsite.plan/1"] = SCHEMA
    federation: str  # federation id, hex
    run_id: str  # ULID
    created: str  # RFC 3339, UTC
    task: dict[str, Any]  # the whole task document (telemetry.schema reads it)
    model: ModelPlan
    local: LocalPlan
    privacy: PrivacyPlan = field(default_factory=PrivacyPlan)
    protection: ProtectionPlan = field(default_factory=ProtectionPlan)
    strategy: StrategyPlan = field(default_factory=StrategyPlan)
    rounds: RoundsPlan
    release: ReleasePlan = field(default_factory=ReleasePlan)
    cost: CostPlan = field(default_factory=CostPlan)
    seed: int = 0  # initial weights only; never a site's noise (docs/privacy.md)

    def __post_init__(self) -> None:
        if self.privacy.site_level and self.protection.mode != "secagg":
            raise DocumentError(
                f"privacy {self.privacy.mode} with protection {self.protection.mode}",
                allowed="protection=secagg: noise that sites add in parts is enough in their sum only",
                next_step="protection=secagg, or privacy=sample, whose noise each site adds by itself",
            )

    @classmethod
    def parse(cls, data: bytes) -> RoundPlan:
        """Read and validate a plan.

        Raises:
            DocumentError: not a document of this schema, or a value out of range.
        """
        return shape.read(cls, documents.document(data, SCHEMA))

    def encode(self) -> bytes:
        """The canonical bytes."""
        return documents.canonical(shape.plain(self))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical bytes, hex."""
        return documents.digest(shape.plain(self))

    @cached_property
    def recipe(self) -> str:
        """SHA-256, hex, of what stays the same when the same run is launched again.

        Left out are the run's id and time, its seed with the start weights made from it, and `cost`: a site works out
        by itself what it is charged.
        """
        kept = {name: value for name, value in shape.plain(self).items() if name not in _OF_ONE_RUN}
        kept["model"] = {name: value for name, value in kept["model"].items() if name != "init_hash"}
        return documents.digest(kept)

    @cached_property
    def task_hash(self) -> str:
        """SHA-256, hex, of the canonical task document: what `policy.tasks` of a site may name."""
        return documents.digest(self.task)

    @property
    def task_name(self) -> str:
        """The task's name, for people."""
        return str(self.task.get("name", ""))


def _range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise DocumentError(f"{name} is {value}", allowed=f"{low} to {high}")
