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
COHORT_MIN: Final = 2  # below there is nothing to hide in; policy asks for 3 unless the operator says otherwise


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
            if not 0.0 <= value <= 0.5:
                raise DocumentError(f"{name} is {value}", allowed="0 to 0.5")

    def size(self, sites: int) -> graph.Size:
        """The graph for a cohort of this many sites.

        Raises:
            ConfigError: no graph of that size keeps the promise.
        """
        return graph.size_for(sites, colluding=self.colluding, corrupt=self.corrupt, dropped=self.dropped)

    def quorum(self, sites: int) -> int:
        """Confirmations that a site wants to see: more than half of honest and colluding sites together."""
        return (sites + math.ceil(self.corrupt * sites)) // 2 + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Distributed noise in the sum; `share` is what each site adds."""

    mechanism: Literal["none", "skellam", "discrete-gaussian"] = "none"
    clip: float = 0.0  # L2 bound of one site's vector, in the units of the update
    multiplier: float = 0.0  # σ of the noise in the sum, over `clip`


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
    noise: Noise = field(default_factory=Noise)

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
        return {item.name: fixedpoint.scale(item.bound, self.sites) for item in self.fields}
