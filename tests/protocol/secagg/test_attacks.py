"""What a malicious server or site may try, written as attacks: the site refuses, by code, with its state unchanged.

The first two are the demonstrated breaks of Flower's SecAgg+: a node that is alive and dropped at once, and masks whose
pairwise part has 28 bits.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol.errors import FedsiteError, IntegrityError, PolicyError, RefusalCode, TrustError
from fedsite.protocol.secagg import agreement, context, fixedpoint, masking, shamir, site
from fedsite.protocol.secagg.advert import Advert, Roster
from fedsite.protocol.secagg.manifest import Manifest, Terms
from fedsite.protocol.secagg.masking import Mask
from tests.secagg_cohort import NO_MODEL, Cohort


def until_masked(count: int = 4, **options: Any) -> Cohort:
    cohort = Cohort(count, **options)
    cohort.advertise()
    cohort.share()
    cohort.mask()
    return cohort


def refused(kind: type[FedsiteError], action: Callable[[], object]) -> RefusalCode:
    with pytest.raises(kind) as caught:
        action()
    return caught.value.refusal


def test_alive_and_dropped_at_once() -> None:
    """The victim in U3 for some and out of U3 for others: nobody ever opens both of its secrets.

    A site answers one U3 only, so each sees the victim alive or dropped; with 2t > n + c the two groups cannot both
    reach the threshold.
    """
    cohort = until_masked(6)
    victim, others = cohort.ids[0], cohort.ids[1:]
    dropped = tuple(others)
    opened_b, opened_key = {}, {}
    for number, one in enumerate(others):
        claim = cohort.sum.u3 if number % 2 else dropped
        state, answers = site.unmask(cohort.states[one], claim, cohort.identities, {})
        (opened_b if victim in claim else opened_key)[one] = answers[victim]
        assert refused(IntegrityError, lambda state=state: site.unmask(state, dropped, cohort.identities, {})) == (
            RefusalCode.REPLAYED
        )
    threshold = cohort.manifest.terms.size(6).threshold
    # The colluding server adds nothing of its own: even all shares together open at most one of the two.
    assert not (len(opened_b) + 1 >= threshold and len(opened_key) >= threshold)


def test_a_site_named_twice_in_a_set() -> None:
    cohort = until_masked()
    one = cohort.ids[0]
    doubled = (*cohort.sum.u3, cohort.ids[1])
    assert refused(IntegrityError, lambda: site.unmask(cohort.states[one], doubled, {}, {})) == RefusalCode.MALFORMED


def test_masks_have_all_their_bits() -> None:
    """Folding the key as Flower does finds nothing: seeds that differ in any one bit share no word of stream."""
    seed = os.urandom(32)
    first = masking.words(seed, 8)
    for bit in (0, 28, 31, 127, 255):
        other = (int.from_bytes(seed, "big") ^ 1 << bit).to_bytes(32, "big")
        assert not np.any(masking.words(other, 8) == first)


def test_a_passive_server_of_two_sites_learns_nothing_from_a_small_search() -> None:
    """Flower's break recovers a vector by trying 2^28 seeds; ours are 256-bit outputs of HKDF over X25519."""
    cohort = until_masked(3)
    seeds = set()
    for one in cohort.ids:
        for other in cohort.ids:
            if one < other:
                salt = context.salt(cohort.sum.session, cohort.sum.u2)
                public = cohort.sum.roster.of_site(other).mask_public
                seeds.add(
                    agreement.pair_seed(agreement.key_of(cohort.states[one].mask_private), public, salt, one, other)
                )
    assert len(seeds) == 3
    assert all(len(seed) == 32 and len(set(seed)) > 8 for seed in seeds)


def test_duplicated_shares() -> None:
    """The server hands a site the same ciphertext as two sources': it opens for one of them only."""
    cohort = Cohort(4)
    cohort.advertise()
    cohort.share()
    one, two, three = cohort.ids[:3]
    sealed = cohort.sum.shares_for(one)
    sealed[three] = sealed[two]
    vector = fixedpoint.to_ring(cohort.vectors[one])
    state, _ = site.mask(cohort.states[one], cohort.sum.u2, sealed, vector)
    _, answers = site.unmask(state, cohort.sum.u2, {}, {})
    assert two in answers
    assert three not in answers


@pytest.mark.parametrize("part", ["mask", "share", "commitment"])
def test_a_swapped_public_key(part: str) -> None:
    cohort = Cohort(4)
    cohort.advertise()
    one, victim = cohort.ids[0], cohort.ids[1]
    start = {"mask": 16, "share": 48, "commitment": 80}[part]
    forged = []
    for advert in cohort.sum.roster.adverts:
        raw = bytearray(advert.raw)
        if advert.site == victim:
            raw[start : start + 32] = agreement.public_of(os.urandom(32))
        forged.append(Advert(bytes(raw)))
    roster = Roster.of(forged)
    before = cohort.states[one]
    assert refused(TrustError, lambda: site.share(before, roster, cohort.identities, NO_MODEL)) == RefusalCode.SIGNATURE
    assert before.stage == "advertised"


def test_our_own_advert_altered() -> None:
    cohort = Cohort(4)
    cohort.advertise()
    one = cohort.ids[0]
    _, other = site.advertise(cohort.manifest, cohort.attempt, cohort.keys[one])
    roster = Roster.of([other, *(a for a in cohort.sum.roster.adverts if a.site != one)])
    assert refused(IntegrityError, lambda: site.share(cohort.states[one], roster, cohort.identities, NO_MODEL)) == (
        RefusalCode.MALFORMED
    )


def test_an_advert_of_another_attempt() -> None:
    """Keys of an earlier attempt are not taken again, however well signed they are."""
    cohort, earlier = Cohort(4), Cohort(4, attempt_number=2)
    cohort.advertise()
    earlier.advertise()
    one, victim = cohort.ids[0], cohort.ids[1]
    stale = earlier.sum.roster.of_site(victim)
    roster = Roster.of([stale, *(a for a in cohort.sum.roster.adverts if a.site != victim)])
    refused(TrustError, lambda: site.share(cohort.states[one], roster, cohort.identities, NO_MODEL))


def test_a_site_that_nobody_certified() -> None:
    cohort = Cohort(4)
    cohort.advertise()
    one, stranger = cohort.ids[0], cohort.ids[1]
    known = {site_id: key for site_id, key in cohort.identities.items() if site_id != stranger}
    refused(TrustError, lambda: site.share(cohort.states[one], cohort.sum.roster, known, NO_MODEL))
    swapped = {**cohort.identities, stranger: cohort.identities[cohort.ids[2]]}
    refused(TrustError, lambda: site.share(cohort.states[one], cohort.sum.roster, swapped, NO_MODEL))


def test_keys_that_two_sites_share() -> None:
    cohort = Cohort(3)
    cohort.advertise()
    first, second, third = cohort.sum.roster.adverts
    copied = Advert(second.raw[:16] + first.raw[16:])
    refused(IntegrityError, lambda: Roster.of([first, copied, third]))
    refused(IntegrityError, lambda: Roster((second, first)))
    refused(IntegrityError, lambda: Roster((first, first)))


def test_a_low_order_key() -> None:
    """All-zero and order-8 points of RFC 7748, section 6.1: the seed would be known to everybody."""
    for point in (bytes(32), b"\x01" + bytes(31)):
        refused(
            TrustError,
            lambda point=point: agreement.pair_seed(agreement.key_of(os.urandom(32)), point, b"", b"a", b"b"),
        )


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_cohort_below_its_minimum(left: int) -> None:
    cohort = Cohort(4)
    cohort.advertise()
    one = cohort.ids[0]
    roster = Roster.of([cohort.sum.roster.of_site(site_id) for site_id in (one, *cohort.ids[1:][:left])][: left + 1])
    if len(roster.sites) >= 3:
        site.share(cohort.states[one], roster, cohort.identities, NO_MODEL)
        return
    assert refused(PolicyError, lambda: site.share(cohort.states[one], roster, cohort.identities, NO_MODEL)) == (
        RefusalCode.COHORT
    )


def test_more_sites_than_the_scale_leaves_room_for() -> None:
    cohort = Cohort(5)
    cohort.advertise()
    narrow = replace(cohort.manifest, sites=4)
    state = replace(cohort.states[cohort.ids[0]], manifest=narrow)
    assert refused(PolicyError, lambda: site.share(state, cohort.sum.roster, cohort.identities, NO_MODEL)) == (
        RefusalCode.COHORT
    )


def test_sets_that_grow() -> None:
    """U3 ⊄ U2, U2 ⊄ U1, and sets without the site that is asked."""
    cohort = Cohort(5)
    cohort.advertise()
    cohort.share(cohort.ids[:4])
    one, outsider, stranger = cohort.ids[0], cohort.ids[4], bytes(16)
    vector = fixedpoint.to_ring(cohort.vectors[one])
    sealed = cohort.sum.shares_for(one)
    for u2 in ((*cohort.sum.u2, stranger), cohort.ids[1:4], cohort.ids[:1]):
        refused(FedsiteError, lambda u2=u2: site.mask(cohort.states[one], u2, sealed, vector.copy()))
    state, _ = site.mask(cohort.states[one], cohort.sum.u2, sealed, vector)
    for u3 in ((*cohort.sum.u2, outsider), cohort.ids[1:4], cohort.ids[:2]):
        refused(FedsiteError, lambda u3=u3: site.unmask(state, u3, cohort.identities, {}))
    assert state.stage == "masked"


def test_every_stage_is_answered_once() -> None:
    cohort = Cohort(3)
    cohort.advertise()
    one = cohort.ids[0]
    before = cohort.states[one]
    refused(IntegrityError, lambda: site.mask(before, cohort.ids, {}, np.zeros(4, np.uint32)))
    refused(IntegrityError, lambda: site.unmask(before, cohort.ids, {}, {}))
    cohort.share()
    shared = cohort.states[one]
    again = refused(IntegrityError, lambda: site.share(shared, cohort.sum.roster, cohort.identities, NO_MODEL))
    cohort.mask()
    masked = cohort.states[one]
    sealed = cohort.sum.shares_for(one)
    twice = refused(IntegrityError, lambda: site.mask(masked, cohort.sum.u2, sealed, np.zeros(4, np.uint32)))
    assert again == twice == RefusalCode.REPLAYED
    refused(IntegrityError, lambda: site.confirm(masked, cohort.sum.u3, cohort.keys[one]))  # a complete graph


@pytest.mark.parametrize("what", ["model", "manifest"])
def test_different_models_or_manifests_to_different_sites(what: str) -> None:
    """Each site trains from what it was shown; the sum is noise, and opens nobody's vector."""
    cohort = Cohort(4)
    if what == "manifest":
        other = Manifest(**{**_fields(cohort.manifest), "plan_hash": "cd" * 32})
        attempt = replace(cohort.attempt, manifest_hash=other.hash)
        advert = site.advertise(other, attempt, cohort.keys[cohort.ids[0]])[1]
        refused(TrustError, lambda: cohort.sum.add_advert(cohort.ids[0], advert.raw, cohort.identities))
        return
    cohort.advertise()
    for number, one in enumerate(cohort.ids):
        model = bytes(32) if number else b"\x01" * 32
        cohort.states[one], sealed = site.share(cohort.states[one], cohort.sum.roster, cohort.identities, model)
        if set(sealed) == set(cohort.sum._near[one]):
            cohort.sum.add_shares(one, sealed)
    cohort.sum.close_shares()
    cohort.mask()
    for one in cohort.sum.u3:
        cohort.sum.add_opened(one, cohort.opened(one))
    assert not np.any(cohort.sum.total.view(np.int32) == cohort.expected())
    # The odd site's secrets were shared in another session: nobody could open its shares, and the sum stays masked.
    refused(PolicyError, cohort.sum.open)
    assert not np.any(cohort.sum.total.view(np.int32) == cohort.expected())


def test_a_roster_shown_to_one_site_only() -> None:
    """Two rosters: the sessions differ, so no pair mask cancels and no share opens."""
    cohort = Cohort(5)
    cohort.advertise()
    small = Roster.of([advert for advert in cohort.sum.roster.adverts if advert.site != cohort.ids[4]])
    odd, _ = site.share(cohort.states[cohort.ids[0]], small, cohort.identities, NO_MODEL)
    even, sealed = site.share(cohort.states[cohort.ids[1]], cohort.sum.roster, cohort.identities, NO_MODEL)
    assert odd.session != even.session
    public = small.of_site(cohort.ids[1]).share_public
    with pytest.raises(IntegrityError):
        agreement.decrypt_share(
            agreement.key_of(odd.share_private),
            public,
            odd.session,
            cohort.ids[1],
            cohort.ids[0],
            sealed[cohort.ids[0]],
        )


def test_terms_that_would_hide_nothing() -> None:
    """No field of the manifest sets a ring, a mask or a threshold; what would weaken them is refused."""
    for bad in ({"min_cohort": 1}, {"min_survivors": 1}, {"min_survivors": 4}, {"colluding": 2}, {"corrupt": 0.9}):
        refused(FedsiteError, lambda bad=bad: Terms(**bad))
    cohort = Cohort(3)
    text = cohort.manifest.encode()
    assert Manifest.parse(text) == cohort.manifest
    for old, new in ((b"z2^32", b"z2^01"), (b"aes256ctr", b"none-mask"), (b'"sites":3', b'"sites":0')):
        refused(FedsiteError, lambda old=old, new=new: Manifest.parse(text.replace(old, new)))


def test_confirmations_of_another_set() -> None:
    cohort = Cohort(110, words=1)
    cohort.advertise()
    cohort.share()
    cohort.mask()
    u3 = cohort.sum.u3
    one = u3[0]
    cohort.confirm()
    state, good = cohort.states[one], cohort.confirmations
    few = dict(list(good.items())[:10])
    assert refused(PolicyError, lambda: site.unmask(state, u3, cohort.identities, few)) == RefusalCode.COHORT
    wrong = {**good, u3[5]: good[u3[6]]}
    refused(TrustError, lambda: site.unmask(state, u3, cohort.identities, wrong))
    smaller = tuple(sorted(u3)[:-1]) if sorted(u3)[-1] != one else tuple(sorted(u3)[1:])
    refused(IntegrityError, lambda: site.unmask(state, smaller, cohort.identities, good))
    refused(IntegrityError, lambda: site.unmask(replace(state, stage="masked"), u3, cohort.identities, good))


def test_a_site_never_sends_all_of_one_secret() -> None:
    """Its answer holds one share of its own b, and no b, however often it is asked."""
    cohort = until_masked(5)
    one = cohort.ids[0]
    secret = cohort.states[one].secret
    answers = cohort.opened(one)
    assert len(answers) == 5
    assert all(secret not in item and len(item) == 33 for item in answers.values())
    assert shamir.combine(np.frombuffer(answers[one][1:], np.uint8)[None], shamir.weights([answers[one][0]])) != secret


def test_nothing_of_a_late_site_is_opened_twice() -> None:
    """A vector that arrives after U3 was closed is not taken, and its b is never asked for."""
    cohort = Cohort(5)
    cohort.advertise()
    cohort.share()
    late = cohort.ids[4]
    vector = cohort.masked(late)
    cohort.mask([one for one in cohort.ids if one != late])
    refused(IntegrityError, lambda: cohort.sum.add_vector(late, vector))
    assert np.array_equal(cohort.unmask(), cohort.expected())
    refused(IntegrityError, lambda: cohort.sum.add_opened(late, {}))


@given(st.sampled_from(["advert", "share", "mask", "unmask"]), st.integers(0, 400), st.integers(0, 255))
def test_an_altered_message_changes_no_state(stage: str, place: int, value: int) -> None:
    """Any byte of any message of a site: refused with a code, or without effect; the sum stays exact."""
    cohort = PLAYED[stage]
    state = cohort.sum
    one = cohort.ids[0]
    before = (state.stage, len(state._adverts), len(state._sealed), len(state._summed), len(state._answered))
    action = ACTIONS[stage](cohort, one, place, value)
    with pytest.raises(FedsiteError) as caught:
        action()
    assert isinstance(caught.value.refusal, RefusalCode)
    after = (state.stage, len(state._adverts), len(state._sealed), len(state._summed), len(state._answered))
    assert before == after


def _advert(cohort: Cohort, one: bytes, place: int, value: int) -> Callable[[], None]:
    raw = bytearray(site.advertise(cohort.manifest, cohort.attempt, cohort.keys[one])[1].raw)
    raw[place % len(raw)] ^= value or 1
    return lambda: cohort.sum.add_advert(one, bytes(raw), cohort.identities)


def _shares(cohort: Cohort, one: bytes, place: int, value: int) -> Callable[[], None]:
    sealed = {other: bytes(81) for other in cohort.ids if other != one}
    victim = list(sealed)[place % len(sealed)]
    if value % 3 == 0:
        del sealed[victim]
    elif value % 3 == 1:
        sealed[victim] = bytes(80)
    else:
        sealed[bytes(16)] = sealed.pop(victim)
    return lambda: cohort.sum.add_shares(one, sealed)


def _vector(cohort: Cohort, one: bytes, place: int, value: int) -> Callable[[], None]:
    wrong: np.ndarray = np.zeros(5 + place, np.uint32) if value % 2 else np.zeros(4, np.int64)
    return lambda: cohort.sum.add_vector(one, wrong)


def _opened(cohort: Cohort, one: bytes, place: int, value: int) -> Callable[[], None]:
    answers = {other: bytes([cohort.ids.index(one) + 1]) + bytes(32) for other in cohort.ids}
    victim = cohort.ids[place % 4]
    if value % 3 == 0:
        answers[victim] = bytes([(cohort.ids.index(one) + 2 + place % 250) % 256]) + bytes(32)
        if answers[victim][0] == cohort.ids.index(one) + 1:
            answers[victim] = b""
    elif value % 3 == 1:
        answers[victim] = answers[victim][:-1]
    else:
        answers[bytes(16)] = bytes(33)
    return lambda: cohort.sum.add_opened(one, answers)


ACTIONS = {"advert": _advert, "share": _shares, "mask": _vector, "unmask": _opened}


def _played() -> dict[str, Cohort]:
    found = {stage: Cohort(4) for stage in ACTIONS}
    for stage, cohort in found.items():
        if stage != "advert":
            cohort.advertise()
        if stage in ("mask", "unmask"):
            cohort.share()
        if stage == "unmask":
            cohort.mask()
    return found


PLAYED = _played()


def _fields(manifest: Manifest) -> dict[str, Any]:
    return {name: getattr(manifest, name) for name in ("purpose", "sites", "fields", "terms", "noise")}


def test_a_seed_appears_in_no_text() -> None:
    cohort = until_masked(3)
    for state in cohort.states.values():
        assert repr(state.secret)[2:-1] not in repr(state)
        assert repr(state.mask_private)[2:-1] not in repr(state)
    assert repr(Mask(b"k" * 32)) == "Mask(sign=1)"
