"""RoundPlan: everything a site is asked to agree to, as one document. Its hash is bound into every signature."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

from fedsite.protocol import documents, shape
from fedsite.protocol.errors import DocumentError
from fedsite.protocol.plan_privacy import (
    SITE,
    SMALL_NOISES,
    PrivacyMode,
    PrivacyPlan,
    SitePrivacyPlan,
    check_range,
)
from fedsite.protocol.secagg.manifest import SITES_MAX, Terms

__all__ = [
    "CONTROLLED", "SCHEMA", "SITE", "SMALL_NOISES", "CostPlan", "LocalPlan", "ModelPlan", "PrivacyMode", "PrivacyPlan",
    "ProtectionPlan", "ReleasePlan", "RoundPlan", "RoundsPlan", "SitePrivacyPlan", "StrategyPlan",
]  # fmt: skip

SCHEMA: Final = "fedsite.plan/1"
CONTROLLED: Final = "fedsite.plan/2"  # of plans with `strategy.control`: earlier releases would leave it out
LONGEST_S: Final = 14 * 86_400  # of a round: its messages may be carried by people
_OF_ONE_RUN: Final = ("run_id", "created", "seed", "cost")


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
        check_range("steps", self.steps, 1, 1_000_000)
        check_range("sampling_rate", self.sampling_rate, 1e-9, 1.0)
        check_range("learning_rate", self.learning_rate, 0.0, 1e3)
        check_range("momentum", self.momentum, 0.0, 0.9999)
        check_range("weight_decay", self.weight_decay, 0.0, 1e3)
        check_range("proximal", self.proximal, 0.0, 1e6)
        check_range("learning_rate_decay", self.learning_rate_decay, 0.01, 1.0)

    def rate(self, round_number: int) -> float:
        """The learning rate of a round, from 1."""
        return self.learning_rate * self.learning_rate_decay ** (round_number - 1)


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
        check_range("count", self.count, 1, 100_000)
        check_range("minimum", self.minimum, 1, 1_000_000)
        if self.goal is not None and self.goal < self.minimum:
            raise DocumentError(f"goal is {self.goal}", allowed=f"at least rounds.minimum ({self.minimum})")
        check_range("over_select", self.over_select, 1.0, 10.0)
        check_range("deadline_s", self.deadline_s, 0.1, LONGEST_S)
        check_range("wait_s", self.wait_s, 0, LONGEST_S)
        check_range("evaluate_every", self.evaluate_every, 1, 100_000)
        check_range("patience", self.patience, 1, 1_000)


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
        check_range("sites", self.sites, self.terms.min_cohort, SITES_MAX)
        check_range("examples_max", self.examples_max, 1, 1 << 16)
        check_range("bound", self.bound, 1e-9, 1e9)
        check_range("groups", self.groups, 1, 1000)
        check_range("stage_s", self.stage_s, 0.1, 86_400)
        check_range("retries", self.retries, 0, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyPlan:
    """How updates become the next global model."""

    name: str = "fedavg"
    options: dict[str, float] = field(default_factory=dict)
    control: bool = False  # SCAFFOLD: sites correct their steps by control variates, and keep one each for the run


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

    schema: Literal["fedsite.plan/1", "fedsite.plan/2"] = SCHEMA
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
        if self.schema != (CONTROLLED if self.strategy.control else SCHEMA):
            raise DocumentError(
                f"schema {self.schema} with strategy.control {self.strategy.control}",
                allowed=f"{CONTROLLED} with control variates, {SCHEMA} without",
            )
        if self.strategy.control:
            self._check_control()

    @classmethod
    def parse(cls, data: bytes) -> RoundPlan:
        """Read and validate a plan.

        Raises:
            DocumentError: not a document of this schema, or a value out of range.
        """
        value = documents.parse(data)
        controlled = isinstance(value, dict) and value.get("schema") == CONTROLLED
        return shape.read(cls, documents.object_of(value, CONTROLLED if controlled else SCHEMA))

    def encode(self) -> bytes:
        """The canonical bytes."""
        return documents.canonical(self.plain())

    def plain(self) -> dict[str, Any]:
        """The JSON value. Without control variates it is the one that earlier releases write and read."""
        value: dict[str, Any] = shape.plain(self)
        if not self.strategy.control:
            del value["strategy"]["control"]
        return value

    @property
    def weighted(self) -> bool:
        """Whether sites count by their windows; else each counts the same."""
        return self.privacy.mode == "none" and not self.strategy.control

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical bytes, hex."""
        return documents.digest(self.plain())

    @cached_property
    def recipe(self) -> str:
        """SHA-256, hex, of what stays the same when the same run is launched again.

        Left out are the run's id and time, its seed with the start weights made from it, and `cost`: a site works out
        by itself what it is charged.
        """
        kept = {name: value for name, value in self.plain().items() if name not in _OF_ONE_RUN}
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

    def _check_control(self) -> None:
        """Control variates follow from updates only where these are sums of plain steps, seen whole."""
        local, name = self.local, self.strategy.name
        if local.optimizer != "sgd" or local.momentum:
            what = f"optimizer {local.optimizer}" if local.optimizer != "sgd" else f"momentum {local.momentum:g}"
            raise DocumentError(
                f"strategy {name} with {what}",
                allowed="plain SGD: a control variate is the mean of the gradients that an update is made of",
                next_step="local.optimizer=sgd local.momentum=0, and a local.learning_rate for it",
            )
        if not local.learning_rate > 0:
            raise DocumentError(f"strategy {name} with learning rate {local.learning_rate:g}", allowed="above 0")
        if self.privacy.site_level:
            raise DocumentError(
                f"strategy {name} with privacy {self.privacy.mode}",
                allowed="privacy none or sample: clipped whole and noised, an update is no sum of gradients",
                next_step=f"privacy=sample with strategy={name}, or strategy=fedavg",
            )
