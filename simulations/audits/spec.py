"""How a privacy claim is audited, as settings: `simulation.audit.*`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fedsite.protocol.errors import ConfigError

AUTO: Final = "auto"  # what the run itself uses
FORMULAS: Final = "formulas"  # a site's own step, with gradients by formula
HOOKS: Final = "hooks"  # a site's own step, with gradients by autograd and Opacus' hooks
ENGINE: Final = "engine"  # the executors of the vectorised engine
PATHS: Final = (AUTO, FORMULAS, HOOKS, ENGINE)
MOST: Final = 2_000  # canaries of one training: its windows have as many features
LEAST: Final = 20  # runs: some choose the attacker's rule, the others measure it


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSpec:
    """Canaries that are in the data or not, by the toss of a coin; who guesses which gives a lower bound on ε."""

    runs: int = 0  # whole trainings with canaries; 0: no audit
    canaries: int = 500  # of each training
    path: str = AUTO
    confidence: float = 0.99  # with which a true claim survives
    control: bool = True  # audits the same with half the noise as well: does this audit have the power to notice?
    seed: int = 0

    def __post_init__(self) -> None:
        if self.runs and self.runs < LEAST:
            raise ConfigError(f"runs is {self.runs}", allowed=f"0, or at least {LEAST}")
        if not 2 <= self.canaries <= MOST:
            raise ConfigError(f"canaries is {self.canaries}", allowed=f"2 to {MOST}")
        if self.path not in PATHS:
            raise ConfigError(f"path is {self.path!r}", allowed=", ".join(PATHS))
        if not 0.5 < self.confidence < 1.0:
            raise ConfigError(f"confidence is {self.confidence:g}", allowed="above 0.5, below 1")
