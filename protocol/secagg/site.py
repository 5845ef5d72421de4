"""A site's side of SA-1 as a pure machine: a state and a message in, the next state and an answer out.

Every check comes before anything secret is used, every stage is answered once, and a state that has answered a stage
can only go forward. The caller stores the new state before it sends the answer.

Stages: advertise → share → mask → (confirm) → unmask. `mask` takes the vector that is already clipped and noised.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from fedsite.protocol.encoding import sha256
from fedsite.protocol.errors import IntegrityError, PolicyError, RefusalCode, TrustError
from fedsite.protocol.keys import SigningKey, VerifyKey
from fedsite.protocol.secagg import agreement, context, graph, masking, shamir
from fedsite.protocol.secagg.advert import Advert, Roster
from fedsite.protocol.secagg.context import Attempt
from fedsite.protocol.secagg.graph import Size
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.protocol.secagg.masking import Mask, Ring

SHARE_BYTES = 81  # x ‖ share of b ‖ share of the mask key, encrypted
Stage = Literal["advertised", "shared", "masked", "confirmed", "ended"]
Identities = Mapping[bytes, VerifyKey]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteState:
    """Everything a site keeps of one attempt; the secrets live until `ended`."""

    stage: Stage
    manifest: Manifest
    attempt: Attempt
    site: bytes  # own id, 16 bytes
    advert: Advert
    mask_private: bytes = field(repr=False)
    share_private: bytes = field(repr=False)
    secret: bytes = field(repr=False)  # b
    session: bytes = b""  # from here on known once shared
    roster: Roster | None = None
    own_share: bytes = field(default=b"", repr=False)  # of b
    u2: tuple[bytes, ...] = ()  # from here on known once masked
    sealed: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)  # shares held for others, by source
    u3: tuple[bytes, ...] = ()  # once confirmed

    @property
    def size(self) -> Size:
        """The graph of this cohort."""
        return self.manifest.terms.size(len(_roster(self).sites))

    @property
    def near(self) -> tuple[bytes, ...]:
        """Neighbours in this cohort, sorted by id; from `share` on."""
        return _near(self)


def advertise(
    manifest: Manifest, attempt: Attempt, identity: SigningKey, random: Callable[[int], bytes] = os.urandom
) -> tuple[SiteState, Advert]:
    """Make the keys of one attempt.

    Raises:
        IntegrityError: the attempt is bound to another manifest.
    """
    if attempt.manifest_hash != manifest.hash:
        raise _wrong("an attempt bound to another manifest", "the manifest's own hash")
    mask_private, share_private, secret = random(32), random(32), random(32)
    site = bytes.fromhex(identity.public.id)
    publics = (agreement.public_of(mask_private), agreement.public_of(share_private))
    advert = Advert.sign(site, *publics, sha256(secret), attempt.adv_ctx, identity)
    state = SiteState(
        stage="advertised", manifest=manifest, attempt=attempt, site=site, advert=advert,
        mask_private=mask_private, share_private=share_private, secret=secret,
    )  # fmt: skip
    return state, advert


def share(
    state: SiteState,
    roster: Roster,
    identities: Identities,
    model_hash: bytes,
    random: Callable[[int], bytes] = os.urandom,
) -> tuple[SiteState, dict[bytes, bytes]]:
    """Check the cohort and encrypt a share of both secrets for every neighbour.

    Args:
        state: after `advertise`.
        roster: U1.
        identities: certified keys by site id, looked up for the neighbours only. Whoever made the adverts of others
            could at most try many orders of the ring, and a site that sides with the server can do that too.
        model_hash: of the model to be trained; 32 zero bytes where there is none.
        random: the sharing polynomials.

    Raises:
        IntegrityError: our advert is missing or altered, or not this stage's turn.
        PolicyError: the cohort is smaller than its minimum, or larger than its scale.
        TrustError: a neighbour without certificate or with a wrong signature.
    """
    _turn(state, "advertised")
    terms = state.manifest.terms
    if roster.of_site(state.site).raw != state.advert.raw:
        raise _wrong("a roster with another advert of ours", "the advert this site sent")
    if not terms.min_cohort <= len(roster.sites) <= state.manifest.sites:
        allowed = f"{terms.min_cohort} to {state.manifest.sites} sites"
        raise PolicyError(f"a cohort of {len(roster.sites)}", allowed=allowed, refusal=RefusalCode.COHORT)
    size = terms.size(len(roster.sites))
    session = context.session(state.attempt.ctx(model_hash), context.roster_hash([a.raw for a in roster.adverts]))
    near = graph.neighbours_of(state.site, graph.ring(session, roster.sites), size.neighbours)
    roster.check(state.attempt.adv_ctx, identities, near)
    holders = graph.holders(state.site, near)
    shares_b = shamir.share(state.secret, len(holders), size.threshold, random)
    shares_sk = shamir.share(state.mask_private, len(holders), size.threshold, random)
    sealed, own, key = {}, b"", agreement.key_of(state.share_private)
    for place, holder in enumerate(holders):
        b_share, sk_share = shares_b[place].tobytes(), shares_sk[place].tobytes()
        if holder == state.site:
            own = bytes([place + 1]) + b_share  # never of its own mask key
            continue
        public = roster.of_site(holder).share_public
        plain = bytes([place + 1]) + b_share + sk_share
        sealed[holder] = agreement.encrypt_share(key, public, session, state.site, holder, plain)
    return replace(state, stage="shared", session=session, roster=roster, own_share=own), sealed


def check_mask(state: SiteState, u2: Collection[bytes], sealed: Mapping[bytes, bytes]) -> None:
    """Everything that `mask` checks of the server's message, before data is read, trained on or paid for.

    Args:
        state: after `share`.
        u2: the sites whose shares exist.
        sealed: the shares made for this site, by source: one from each neighbour in `u2`.

    Raises:
        IntegrityError: U2 is no part of U1, we are not in it, a share is missing or superfluous, not this stage's turn.
        PolicyError: too few sites or neighbours are left.
    """
    _turn(state, "shared")
    near = _near(state)
    _subset(u2, _roster(state).sites, "U2", "U1", state.site)
    _enough(state, u2, near)
    wanted = set(near) & set(u2)
    if set(sealed) != wanted or any(len(item) != SHARE_BYTES for item in sealed.values()):
        raise _wrong(f"{len(sealed)} shares", f"one of {SHARE_BYTES} bytes from each of {len(wanted)} neighbours")


def mask(
    state: SiteState, u2: Collection[bytes], sealed: Mapping[bytes, bytes], vector: Ring, *, threads: int = 1
) -> tuple[SiteState, Ring]:
    """Add this site's masks to its vector, in place.

    Args:
        state: after `share`.
        u2: the sites whose shares exist.
        sealed: the shares made for this site, by source: one from each neighbour in `u2`.
        vector: [word] uint32, clipped and noised.
        threads: for the streams.

    Raises:
        IntegrityError: as `check_mask`, or a vector of another length.
        PolicyError: as `check_mask`.
    """
    check_mask(state, u2, sealed)
    if len(vector) != state.manifest.words:
        raise _wrong(f"a vector of {len(vector)} words", f"{state.manifest.words} words")
    salt = context.salt(state.session, u2)
    masks = [Mask(agreement.self_seed(state.secret, salt, state.site))]
    key = agreement.key_of(state.mask_private)
    for other in sorted(sealed):
        public = _roster(state).of_site(other).mask_public
        seed = agreement.pair_seed(key, public, salt, state.site, other)
        masks.append(Mask(seed, 1 if state.site < other else -1))
    masking.apply(vector, masks, stream=state.manifest.terms.stream, threads=threads)
    return replace(state, stage="masked", u2=tuple(sorted(u2)), sealed=dict(sealed)), vector


def confirm(state: SiteState, u3: Collection[bytes], identity: SigningKey) -> tuple[SiteState, bytes]:
    """Sign who survived; only in the sparse graph.

    Raises:
        IntegrityError: U3 is no part of U2, we are not in it, or not this stage's turn.
        PolicyError: too few sites or neighbours are left.
    """
    _turn(state, "masked")
    if not state.size.confirm:
        raise _wrong("a confirm stage in a complete graph", "unmask")
    _subset(u3, state.u2, "U3", "U2", state.site)
    _enough(state, u3, _near(state))
    signature = identity.sign(context.survivors_message(state.session, u3))
    return replace(state, stage="confirmed", u3=tuple(sorted(u3))), signature


def unmask(
    state: SiteState, u3: Collection[bytes], identities: Identities, confirmations: Mapping[bytes, bytes]
) -> tuple[SiteState, dict[bytes, bytes]]:
    """For each neighbour exactly one share: of b when it survived, of its mask key when it dropped out.

    Args:
        state: after `mask`, or after `confirm` in the sparse graph.
        u3: the sites whose masked vectors are in the sum.
        identities: of the sites that confirmed.
        confirmations: signatures over `u3`, by site; empty in the complete graph.

    Returns:
        The ended state, without secrets, and x ‖ share (33 bytes) by source. A share that does not open, or has not
        the x of this site, is left out.

    Raises:
        IntegrityError: U3 is no part of U2, is another than was confirmed, we are not in it, or not our turn.
        PolicyError: too few sites, neighbours or confirmations.
        TrustError: a confirmation that does not verify.
    """
    confirms = state.roster is not None and state.size.confirm
    _turn(state, "confirmed" if confirms else "masked")
    _subset(u3, state.u2, "U3", "U2", state.site)
    _enough(state, u3, _near(state))
    if confirms:
        if tuple(sorted(u3)) != state.u3:
            raise _wrong("another U3 than was confirmed", "the U3 this site signed")
        _quorum(state, u3, identities, confirmations)
    alive, answers = set(u3), {state.site: state.own_share}
    key, order = agreement.key_of(state.share_private), _order(state)
    for source, sealed in sorted(state.sealed.items()):
        public = _roster(state).of_site(source).share_public
        try:
            plain = agreement.decrypt_share(key, public, state.session, source, state.site, sealed)
        except (IntegrityError, TrustError):
            continue  # its maker's fault: others may hold good ones, and silence opens nothing
        if plain[0] == graph.position(state.site, source, order, state.size.neighbours):  # else its maker's fault too
            answers[source] = plain[:1] + (plain[1:33] if source in alive else plain[33:])
    ended = replace(state, stage="ended", mask_private=b"", share_private=b"", secret=b"", own_share=b"", sealed={})
    return ended, answers


def _quorum(
    state: SiteState, u3: Collection[bytes], identities: Identities, confirmations: Mapping[bytes, bytes]
) -> None:
    needed = state.manifest.terms.quorum(len(_roster(state).sites))
    if len(confirmations) < needed or not set(confirmations) <= set(u3):
        raise PolicyError(
            f"{len(confirmations)} confirmations", allowed=f"at least {needed}, of sites in U3",
            refusal=RefusalCode.COHORT,
        )  # fmt: skip
    message = context.survivors_message(state.session, u3)
    for site, signature in confirmations.items():
        identity = identities.get(site)
        if identity is None or identity.id != site.hex():
            raise TrustError(f"site {site.hex()} brings no certificate", allowed="a certified site")
        identity.verify(signature, message, f"confirmation of site {site.hex()}")


def _turn(state: SiteState, stage: Stage) -> None:
    if state.stage != stage:
        raise IntegrityError(
            f"a session that is {state.stage}", allowed=f"one that is {stage}", refusal=RefusalCode.REPLAYED
        )


def _subset(part: Collection[bytes], whole: Collection[bytes], name: str, of: str, site: bytes) -> None:
    if len(set(part)) != len(part) or not set(part) <= set(whole):
        raise _wrong(f"{name} is no part of {of}, or names a site twice", f"sites of {of}, each once")
    if site not in part:
        raise _wrong(f"{name} without this site", "asking the sites in it")


def _enough(state: SiteState, left: Collection[bytes], near: Collection[bytes]) -> None:
    terms, threshold = state.manifest.terms, state.size.threshold
    if len(left) < terms.min_survivors:
        raise PolicyError(
            f"{len(left)} sites are left", allowed=f"at least {terms.min_survivors}", refusal=RefusalCode.COHORT
        )
    live = len(set(left) & set(near)) + 1
    if live < threshold:
        raise PolicyError(
            f"{live} holders of our shares are left", allowed=f"at least {threshold}", refusal=RefusalCode.COHORT
        )


def _near(state: SiteState) -> tuple[bytes, ...]:
    return graph.neighbours_of(state.site, _order(state), state.size.neighbours)


def _order(state: SiteState) -> tuple[bytes, ...]:
    return graph.ring(state.session, _roster(state).sites)


def _roster(state: SiteState) -> Roster:
    if state.roster is None:
        raise _wrong("a session without a roster", "the share stage first")
    return state.roster


def _wrong(found: str, allowed: str) -> IntegrityError:
    return IntegrityError(found, allowed=allowed, refusal=RefusalCode.MALFORMED)
