"""The cohort that a site is shown: forged, stale, foreign or short rosters are refused before a secret is used."""

import os
from dataclasses import replace

import pytest

from fedsite.protocol.errors import IntegrityError, PolicyError, RefusalCode, TrustError
from fedsite.protocol.secagg import agreement, context, graph, site
from fedsite.protocol.secagg.advert import Advert, Roster
from tests.secagg_cohort import NO_MODEL, Cohort, refused


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


def test_a_wrong_signature() -> None:
    """Any bit of an advert, its signature included: neither the server nor a neighbour takes it."""
    cohort = Cohort(3)
    cohort.advertise()
    one, victim = cohort.ids[:2]
    for place in (16, 47, 111, 112, 175):
        raw = bytearray(cohort.sum.roster.of_site(victim).raw)
        raw[place] ^= 1
        forged = Advert(bytes(raw))
        fresh = Cohort(3)
        refused(
            TrustError, lambda forged=forged, fresh=fresh: fresh.sum.add_advert(victim, forged.raw, fresh.identities)
        )
        roster = Roster.of([forged, *(a for a in cohort.sum.roster.adverts if a.site != victim)])
        refused(TrustError, lambda roster=roster: site.share(cohort.states[one], roster, cohort.identities, NO_MODEL))


def test_a_forged_advert_far_away_on_the_ring() -> None:
    """In the sparse graph a site looks at its neighbours; whoever has the forged one beside it refuses."""
    cohort = Cohort(110, words=1)
    cohort.advertise()
    victim = cohort.ids[0]
    raw = bytearray(cohort.sum.roster.of_site(victim).raw)
    raw[20] ^= 1
    roster = Roster.of([Advert(bytes(raw)), *(a for a in cohort.sum.roster.adverts if a.site != victim)])
    hashed = context.roster_hash([advert.raw for advert in roster.adverts])
    session = context.session(cohort.attempt.ctx(NO_MODEL), hashed)
    size = cohort.manifest.terms.size(110)
    near = graph.neighbours(graph.ring(session, roster.sites), size.neighbours)[victim]
    assert len(near) == size.neighbours < 109
    for one in near[:3]:
        refused(TrustError, lambda one=one: site.share(cohort.states[one], roster, cohort.identities, NO_MODEL))


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


P = 2**255 - 19
E8 = 325606250916557431795983626356110631294008115727848805560023387167927233504
F8 = 39382357235489614581723060781553021112529911719440698176882885853963445705823


@pytest.mark.parametrize("number", [0, 1, E8, F8, P - 1, P, P + 1, P + 18, 1 << 255, (1 << 255) + F8])
def test_a_signed_key_of_low_order(number: int) -> None:
    """Every encoding of a point whose order divides 8: refused before anybody makes a key with it, as OpenSSL would."""
    point = number.to_bytes(32, "little")
    cohort = Cohort(3)
    one = cohort.ids[0]
    good = agreement.public_of(os.urandom(32))
    for keys in ((point, good), (good, point)):
        advert = Advert.sign(one, *keys, bytes(32), cohort.attempt.adv_ctx, cohort.keys[one])
        if number == P + 18:  # 18 is an honest point
            advert.check(cohort.attempt.adv_ctx, cohort.identities[one])
            agreement.pair_seed(agreement.key_of(os.urandom(32)), point, b"", b"a", b"b")
            continue
        refused(TrustError, advert.check, cohort.attempt.adv_ctx, cohort.identities[one])
        refused(TrustError, agreement.pair_seed, agreement.key_of(os.urandom(32)), point, b"", b"a", b"b")


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
