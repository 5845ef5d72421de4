"""What a simulation's attackers do, as settings: `simulation.attack.*`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fedsite.protocol.errors import ConfigError

NONE: Final = "none"
LABEL_FLIP: Final = "label-flip"  # trains on wrong labels
SIGN_FLIP: Final = "sign-flip"  # sends its update the other way round
SCALED: Final = "scaled"  # sends its honest update many times over
BACKDOOR: Final = "backdoor"  # teaches the model a target for windows with a trigger, and sends that many times over
FREE_RIDER: Final = "free-rider"  # does nothing: its update is zero
RANDOM: Final = "random"  # trains on noise instead of data
KINDS: Final = (NONE, LABEL_FLIP, SIGN_FLIP, SCALED, BACKDOOR, FREE_RIDER, RANDOM)
EVERY: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """The pattern of a backdoor: the last readings of the first channels take one value."""

    steps: int = 2  # readings at the end of a window (rows of an image, from below)
    features: int = 2  # channels (columns of an image, from the left)
    value: float = 3.0  # after normalisation

    def __post_init__(self) -> None:
        for name in ("steps", "features"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", allowed="at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSpec:
    """Who attacks, and how. `kind: none` is a run without attackers."""

    kind: str = NONE
    share: float = 0.1  # of the population's sites, drawn by the seed; at least one
    scale: float = 1.0  # what an attacker's update is multiplied by (a sign flip: by minus this)
    source: int = EVERY  # class whose labels are flipped, and that a backdoor's success is measured on; -1: all
    target: float = 0.0  # class, or value in the label's own scaled units, that labels are turned into
    fraction: float = 0.5  # of a backdoor's training windows that carry the trigger
    trigger: Trigger = Trigger()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind is {self.kind!r}", allowed=", ".join(KINDS))
        if not 0.0 < self.share <= 1.0:
            raise ConfigError(f"share is {self.share:g}", allowed="above 0, at most 1")
        if not 0.0 < self.fraction <= 1.0:
            raise ConfigError(f"fraction is {self.fraction:g}", allowed="above 0, at most 1")
        if not 0.0 < self.scale <= 1e4:
            raise ConfigError(f"scale is {self.scale:g}", allowed="above 0, at most 10,000")
        if self.source < EVERY:
            raise ConfigError(f"source is {self.source}", allowed="a class, or -1 for all of them")
