"""fedsite.secagg/1: the terms of one sum. Every site sees them before it makes a key, and its keys are bound to them.

Nothing in here lets the server choose a mask, a key or a threshold: graph and threshold follow from the number of
sites, the scale from the bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal

from fedsite.protocol import documents, ids, shape
from fedsite.protocol.encoding import sha256
from fedsite.protocol.errors import DocumentError
from fedsite.protocol.messages import Purpose
from fedsite.protocol.secagg import fixedpoint, graph
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.masking import Stream

SCHEMA: Final = "fedsite.secagg/1"
WORDS_MAX: Final = 1 << 28
SITES_MAX: Final = 100_000
FIELDS_MAX: Final = 100_000
SHARE_MIN: Final = 0.05  # of corrupt and of lost sites: a server that declares none would get a ring of two neighbours
COHORT_MIN: Final = 2  # below there is nothing to hide in; policy asks for 3 unless the operator says otherwise
NOISE_STEPS: Final = 2.0**14  # σ of one site's noise in grid steps, at most: a table of it takes 0.3 s, once
NOISE_STEPS_MIN: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a plan settles for all sums of its run."""

    min_cohort: int = 3  # sites whose keys are in the roster
    min_survivors: int = 3  # sites in the sum; also what the noise is shared among
    colluding: int = 0  # c, sites that may side with the server (complete graph)
    corrupt: float = 0.1  # their share (sparse graph)
    dropped: float = 0.1  # share of sites that may drop out (sparse graph)
    stream: Stream = "aes256ctr"

    def __post_init__(self) -> None:
        if self.min_cohort < COHORT_MIN:
            raise DocumentError(f"min_cohort is {self.min_cohort}", allowed=f"at least {COHORT_MIN}")
        if not COHORT_MIN <= self.min_survivors <= self.min_cohort:
            raise DocumentError(
                f"min_survivors is {self.min_survivors}", allowed=f"{COHORT_MIN} to min_cohort ({self.min_cohort})"
            )
        if not 0 <= self.colluding <= self.min_survivors - 2:
            raise DocumentError(
                f"colluding is {self.colluding}",
                allowed=f"0 to min_survivors − 2 ({self.min_survivors - 2}): two honest sites hide each other",
            )
        for name in ("corrupt", "dropped"):
            value = getattr(self, name)
            if not SHARE_MIN <= value <= 0.5:
                raise DocumentError(f"{name} is {value}", allowed=f"{SHARE_MIN} to 0.5")

    def size(self, sites: int) -> graph.Size:
        """The graph for a cohort of this many sites.

        Raises:
            ConfigError: no graph of that size keeps the promise.
        """
        return graph.size_for(sites, colluding=self.colluding, corrupt=self.corrupt, dropped=self.dropped)

    @property
    def honest(self) -> int:
        """Sites whose noise nobody can subtract, in the smallest sum that is opened."""
        return self.min_survivors - self.colluding

    def quorum(self, sites: int) -> int:
        """Confirmations that a site wants to see: more than half of honest and colluding sites together."""
        return (sites + math.ceil(self.corrupt * sites)) // 2 + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where noised values live: integers, `scale` of them per unit, each site's noise of `variance` (steps squared)."""

    scale: float
    variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Noise in the sum of all fields of one prefix: each site clips them together to `clip` and adds its part of it."""

    prefix: str  # "delta/", "statistics/", …
    mechanism: Literal["skellam", "discrete-gaussian"] = "skellam"
    clip: float  # L2 bound of one site's part, in the fields' units
    multiplier: (
        float  # σ of the noise in the smallest sum that is opened, without the colluding sites' part, over `clip`
    )

    def __post_init__(self) -> None:
        for name in ("clip", "multiplier"):
            value = getattr(self, name)
            if not (0.0 < value < math.inf):
                raise DocumentError(f"noise {name} of {self.prefix} is {value}", allowed="above 0 and finite")

    def grid(self, sites: int, honest: int) -> Grid:
        """The grid for at most `sites` in a sum, of which `honest` at least add their part: variance μ / honest each.

        It leaves room for 10 σ of what all sites add together, (2^31 − 1) / (sites · clip + 10 σ) steps a unit, and
        is coarser where one site's noise would be more steps than its table bears.

        Raises:
            DocumentError: the noise is so small that the grid hides nothing of it.
        """
        part = self.multiplier * self.clip / math.sqrt(honest)
        scale = min(fixedpoint.scale(self.clip, sites, noise=part * math.sqrt(sites)), NOISE_STEPS / part)
        steps = scale * part
        if not steps >= NOISE_STEPS_MIN:
            raise DocumentError(
                f"noise of {steps:.3g} grid steps a site", allowed=f"at least {NOISE_STEPS_MIN:g}",
                next_step="a larger noise multiplier, or a smaller protection.sites",
            )  # fmt: skip
        return Grid(scale=scale, variance=steps * steps)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The terms of one sum."""

    schema: Literal["fedsite.secagg/1"] = SCHEMA
    purpose: Purpose
    plan_hash: str  # hex
    sites: int  # the most that can be in the cohort: the scale leaves room for so many
    fields: tuple[Field, ...]  # the vector, in order
    examples_max: int = 0  # windows that give weight 1; 0: every site weighs 1
    ring: Literal["z2^32"] = "z2^32"
    terms: Terms = field(default_factory=Terms)
    noise: tuple[Noise, ...] = ()  # of all fields or of none; no site weighs more than another then

    def __post_init__(self) -> None:
        ids.hash_bytes(self.plan_hash)
        if not self.terms.min_cohort <= self.sites <= SITES_MAX:
            raise DocumentError(f"sites is {self.sites}", allowed=f"{self.terms.min_cohort} to {SITES_MAX}")
        names = [item.name for item in self.fields]
        if not names or len(names) > FIELDS_MAX or len(set(names)) != len(names):
            raise DocumentError(f"{len(names)} fields", allowed=f"1 to {FIELDS_MAX} fields, each name once")
        for item in self.fields:
            if not (item.bound > 0.0 and math.isfinite(item.bound)) or any(size < 0 for size in item.shape):
                raise DocumentError(f"field {item.name}: bound {item.bound}, shape {list(item.shape)}")
        if not 0 < self.words <= WORDS_MAX:
            raise DocumentError(f"a vector of {self.words} words", allowed=f"1 to {WORDS_MAX}")
        if any(item.weighted for item in self.fields) and self.examples_max < 1:
            raise DocumentError("weighted fields without examples_max", allowed="examples_max of 1 or more")
        if self.noise:
            self._check_noise()

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read and validate.

        Raises:
            DocumentError: not a document of this schema, or a value out of range.
        """
        return shape.read(cls, documents.document(data, SCHEMA))

    def encode(self) -> bytes:
        """The canonical bytes."""
        return documents.canonical(shape.plain(self))

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of the canonical bytes, 32 bytes."""
        return sha256(self.encode())

    @property
    def words(self) -> int:
        """Length of the vector."""
        return sum(item.size for item in self.fields)

    @cached_property
    def scales(self) -> dict[str, float]:
        """Steps per unit of every field."""
        if not self.noise:
            return {item.name: fixedpoint.scale(item.bound, self.sites) for item in self.fields}
        return {item.name: self.grid(part).scale for part in self.noise for item in self.fields if _of(item, part)}

    def grid(self, part: Noise) -> Grid:
        """The grid of one part of the noise."""
        return part.grid(self.sites, self.terms.honest)

    def _check_noise(self) -> None:
        """Every field is under exactly one part, weighs the same at every site, and takes one word a value."""
        for item in self.fields:
            parts = [part for part in self.noise if _of(item, part)]
            if len(parts) != 1 or item.bound != parts[0].clip or item.weighted or item.wide:
                raise DocumentError(
                    f"field {item.name} of a noised sum: bound {item.bound}, under {len(parts)} parts of the noise",
                    allowed="one part, bound = its clip, neither weighted nor wide",
                )
        for part in self.noise:
            if not any(_of(item, part) for item in self.fields):
                raise DocumentError(f"noise of {part.prefix}", allowed="a prefix of fields of this sum")
            self.grid(part)


def _of(item: Field, part: Noise) -> bool:
    return item.name.startswith(part.prefix)
