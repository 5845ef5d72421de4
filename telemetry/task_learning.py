"""The second half of a task document: what is learned from the windows, how it is split, judged and trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from fedsite.telemetry.errors import TaskError
from fedsite.telemetry.fields import check, nearest

# What a plan's local and privacy sections take; their values are checked there.
LOCAL_KEYS = (
    "steps",
    "sampling_rate",
    "optimizer",
    "learning_rate",
    "momentum",
    "weight_decay",
    "proximal",
    "learning_rate_decay",
)
PRIVATE_KEYS = (
    "rounds",
    "local",
    "unit",
    "adjacency",
    "epsilon",
    "delta",
    "clip",
    "batch",
    "statistics_noise",
    "evaluation_noise",
    "calibration_noise",
    "accountant",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What is learned.

    column: the value of `column` in the window, taken `at` its last row, or `any` (1 if it is ever nonzero).
    horizon: the value of `column` `ahead` rows after the window (`reduce: at`), or whether it is nonzero anywhere in
    those rows (`reduce: any`). self: the window itself (reconstruction); `column` is ground truth, never trained on.
    """

    kind: Literal["column", "horizon", "self", "none"]
    column: str | None = None
    at: Literal["last", "any"] = "last"
    ahead: int = 1  # rows
    reduce: Literal["at", "any"] = "at"
    classes: tuple[str | int, ...] = ()
    maximum: float | None = None  # the label is capped here
    scale: float = 1.0  # a model predicts label / scale

    def __post_init__(self) -> None:
        if self.kind in ("column", "horizon") and not self.column:
            raise TaskError("column is missing", allowed=f"a column's name, as kind is {self.kind}")
        check("ahead", self.ahead, 1, 1_000_000)
        if not self.scale > 0:
            raise TaskError(f"scale is {self.scale}", allowed="above 0")
        if len(set(map(str, self.classes))) != len(self.classes) or len(self.classes) == 1:
            raise TaskError(f"classes is {list(self.classes)}", allowed="at least two, each once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which rows train and which are held out; no reading is ever in both.

    column: by the values of `column`. entity: whole entities, about `fraction` of them. time: each entity's rows from a
    cut on: `rows` after its start, or `at` a date, or its last `fraction`; `guard` rows before the cut are in neither
    (None: as many as a window and its label span).
    """

    kind: Literal["column", "time", "entity", "none"]
    column: str | None = None
    train: str | int | bool = "train"
    holdout: str | int | bool = "test"
    exclude: dict[str, str | int | bool] = field(default_factory=dict)  # rows with this value in a column do not train
    shared: bool = (
        False  # holdout rows of all sites are one test set: of n sites, the k-th takes every n-th row from k on
    )
    fraction: float = 0.3
    rows: int | None = None
    at: str | float | None = None
    guard: int | None = None
    holdout_windows: Literal["all", "last"] = "all"

    def __post_init__(self) -> None:
        if self.kind == "column" and not self.column:
            raise TaskError("column is missing", allowed="a column's name, as kind is column")
        if self.shared and self.kind != "column":
            raise TaskError(f"shared is true with kind {self.kind}", allowed="kind column")
        if self.rows is not None and self.at is not None:
            raise TaskError("rows and at are both given", allowed="one of them")
        _ = self.moment
        check("fraction", self.fraction, 0.01, 0.99)
        if self.rows is not None:
            check("rows", self.rows, 1, 1_000_000_000)
        if self.guard is not None:
            check("guard", self.guard, 0, 1_000_000_000)

    @property
    def moment(self) -> float | None:
        """`at` in units of the time column: a number as it is, a date as seconds since 1970 UTC."""
        if not isinstance(self.at, str):
            return self.at
        try:
            date = datetime.fromisoformat(self.at)
        except ValueError:
            raise TaskError(f"at is {self.at!r}", allowed="a number, or a date such as 2016-03-01") from None
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The architecture by name, and its own settings."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How a model is judged."""

    name: str
    better: Literal["lower", "higher"]
    unit: str = ""
    maximum: float | None = None  # errors are capped here where a bound on one record's part is needed
    quantile: float | None = None  # f1_at_threshold: of the training windows' scores
    factor: float | None = None  # f1_at_threshold: threshold = factor * quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What the int8 model may lose: `parity` is the largest relative loss of the metric."""

    parity: float = 0.02

    def __post_init__(self) -> None:
        check("parity", self.parity, 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The recommended run. `private` is laid over the rest when privacy is on; overrides win over both."""

    rounds: int = 10
    local: dict[str, Any] = field(default_factory=dict)
    private: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check("rounds", self.rounds, 1, 100_000)
        for path, section, known in (
            ("local", self.local, LOCAL_KEYS),
            ("private", self.private, PRIVATE_KEYS),
            ("private.local", self.private.get("local") or {}, LOCAL_KEYS),
        ):
            for key in section:
                if key not in known:
                    raise TaskError(f"{path}.{key} is not known", allowed=nearest(key, known))
