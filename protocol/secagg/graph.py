"""Who shares masks with whom, and how many shares open a secret.

Up to about 100 sites everybody is everybody's neighbour, and the threshold alone makes inconsistent survivor sets
harmless: 2t > n + c. Above that each site has k neighbours on a ring whose order nobody can choose, and a confirm
stage does what the threshold cannot.

Source: Bonawitz et al., CCS 2017, theorem 6.5; Bell et al., CCS 2020, section 3 (Harary graph, union bound).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fedsite.protocol.encoding import sha256
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.secagg.shamir import HOLDERS_MAX

COMPLETE_MAX: Final = 100  # sites; above, the sparse graph is cheaper and holders would not fit in a byte for long
SIGMA: Final = 40  # a bad neighbourhood has probability below 2^-SIGMA
ETA: Final = 30  # a lost secret has probability below 2^-ETA


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Neighbours a site has, and shares that open its secrets."""

    neighbours: int  # k
    threshold: int  # t
    confirm: bool  # whether survivors are confirmed by signature before anything is opened


@lru_cache(maxsize=256)  # a sum asks for it at every stage
def size_for(sites: int, *, colluding: int = 0, corrupt: float = 0.1, dropped: float = 0.1) -> Size:
    """The graph for a cohort: complete up to `COMPLETE_MAX`, k-regular above.

    Args:
        sites: n.
        colluding: c, sites that may side with the server, for the complete graph.
        corrupt: γ, their share, for the sparse graph.
        dropped: δ, the share of sites that may drop out, for the sparse graph.

    Raises:
        ConfigError: nothing of this size keeps the promise.
    """
    if sites <= COMPLETE_MAX:
        return Size(neighbours=sites - 1, threshold=complete_threshold(sites, colluding), confirm=False)
    k, t = sparse(sites, corrupt=corrupt, dropped=dropped)
    return Size(neighbours=k, threshold=t, confirm=True)


def complete_threshold(sites: int, colluding: int) -> int:
    """t = ⌊(n + c) / 2⌋ + 1.

    Raises:
        ConfigError: more colluding sites than leave a threshold that n sites can meet.
    """
    threshold = (sites + colluding) // 2 + 1
    if sites < 2 or colluding < 0 or threshold > sites:
        raise ConfigError(
            f"{colluding} colluding of {sites} sites",
            allowed="0 to sites − 2, of at least 2 sites",
            next_step="lower protection.terms.colluding, or ask more sites",
        )
    return threshold


def sparse(sites: int, *, corrupt: float, dropped: float, sigma: int = SIGMA, eta: int = ETA) -> tuple[int, int]:
    """The smallest even k, with its t: n·P[corrupt neighbours ≥ t] < 2^-σ and n·P[live neighbours < t] < 2^-η.

    Whatever is declared, t is a majority of the neighbours, a lost site's key can be rebuilt (t ≤ k), and the graph
    hangs together without the corrupt and the lost but for 2^-σ: a part of it would be a sum of its own.

    Raises:
        ConfigError: no k up to 254 does it.
    """
    bad, live = round(corrupt * sites), math.floor((1.0 - dropped) * sites)
    for k in range(2, min(sites - 1, HOLDERS_MAX - 1) + 1, 2):
        enemies, friends = _mass(sites - 1, bad, k), _mass(sites - 1, live, k)
        threshold = next(t for t in range(k // 2 + 1, k + 2) if sites * sum(enemies[t:]) < 2.0**-sigma)
        whole = sites**2 / 2 * _all_among(k, bad + sites - live, sites) < 2.0**-sigma
        if whole and threshold <= k and sites * sum(friends[:threshold]) < 2.0**-eta:
            return k, threshold
    raise ConfigError(
        f"{sites} sites of which {corrupt:.0%} collude and {dropped:.0%} drop out",
        allowed="shares that leave an honest majority among a site's neighbours",
        next_step="lower protection.terms.corrupt or protection.terms.dropped",
    )


def ring(session: bytes, ids: Sequence[bytes]) -> tuple[bytes, ...]:
    """The order of SHA256(session ‖ id): fixed only when every key of the cohort is."""
    return _ring(session, tuple(ids))


@lru_cache(maxsize=8)  # every stage asks for it
def _ring(session: bytes, ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(sorted(ids, key=lambda site: sha256(session + site)))


def neighbours(order: Sequence[bytes], neighbours: int) -> dict[bytes, tuple[bytes, ...]]:
    """Each site's neighbours, sorted by id: everybody else, or k / 2 on either side of it on the ring."""
    return {site: _around(order, neighbours, place) for place, site in enumerate(order)}


def neighbours_of(site: bytes, order: Sequence[bytes], neighbours: int) -> tuple[bytes, ...]:
    """One site's entry of `neighbours`."""
    return _around(order, neighbours, order.index(site))


def holders(site: bytes, near: Sequence[bytes]) -> tuple[bytes, ...]:
    """Who holds a share of a site's secrets, in the order of x = 1, 2, …: its neighbours and itself."""
    return tuple(sorted((*near, site)))


def position(holder: bytes, source: bytes, order: Sequence[bytes], neighbours: int) -> int:
    """The x at which a neighbour of `source` holds a share of its secrets."""
    return holders(source, neighbours_of(source, order, neighbours)).index(holder) + 1


def lasting(left: Iterable[bytes], near: Mapping[bytes, Sequence[bytes]], threshold: int) -> set[bytes]:
    """The largest part of `left` in which every site has as many holders, itself with them, as open its secrets."""
    alive = set(left)
    while lonely := {site for site in alive if len(alive.intersection(near[site])) + 1 < threshold}:
        alive -= lonely
    return alive


def _around(order: Sequence[bytes], neighbours: int, place: int) -> tuple[bytes, ...]:
    if neighbours >= len(order) - 1:
        return tuple(sorted((*order[:place], *order[place + 1 :])))
    half = neighbours // 2
    return tuple(sorted(order[(place + step) % len(order)] for step in range(-half, half + 1) if step))


def _all_among(places: int, marked: int, sites: int) -> float:
    """P[that many given sites are all among the marked ones].

    On a ring with k / 2 neighbours on either side, whatever cuts it in two takes k / 2 sites in a row, twice.
    """
    return math.prod((marked - place) / (sites - place) for place in range(places)) if places <= marked else 0.0


def _mass(population: int, marked: int, draws: int) -> list[float]:
    """P[X = x] for x = 0 to `draws`, X hypergeometric. Tails are summed from it: 1 − P would lose the small ones."""
    everything = _log_choose(population, draws)
    return [
        math.exp(_log_choose(marked, x) + _log_choose(population - marked, draws - x) - everything)
        if x <= marked and draws - x <= population - marked
        else 0.0
        for x in range(draws + 1)
    ]


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
