"""What a malicious server or site may try, written as attacks: the site refuses, by code, with its state unchanged."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedsite.protocol.errors import FedsiteError, IntegrityError, PolicyError, RefusalCode, TrustError
from fedsite.protocol.secagg import fixedpoint, shamir, site
from fedsite.protocol.secagg.manifest import Manifest, Terms
from fedsite.protocol.secagg.masking import Mask
from tests.secagg_cohort import Cohort, refused


def until_masked(count: int = 4, **options: Any) -> Cohort:
    cohort = Cohort(count, **options)
    cohort.advertise()
    cohort.share()
    cohort.mask()
    return cohort


def test_a_site_named_twice_in_a_set() -> None:
    cohort = until_masked()
    one = cohort.ids[0]
    doubled = (*cohort.sum.u3, cohort.ids[1])
    assert refused(IntegrityError, lambda: site.unmask(cohort.states[one], doubled, {}, {})) == RefusalCode.MALFORMED


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


def test_different_u2_to_different_sites() -> None:
    """Seeds are bound to U2: masks of sites that were told different ones do not cancel, and what opens is noise."""
    cohort = Cohort(5)
    cohort.advertise()
    cohort.share()
    odd, left_out = cohort.ids[0], cohort.ids[4]
    smaller = tuple(one for one in cohort.sum.u2 if one != left_out)
    sealed = {source: item for source, item in cohort.sum.shares_for(odd).items() if source != left_out}
    vector = fixedpoint.to_ring(cohort.vectors[odd])
    cohort.states[odd], masked = site.mask(cohort.states[odd], smaller, sealed, vector)
    cohort.sum.add_vector(odd, masked)
    for one in cohort.ids[1:]:
        cohort.sum.add_vector(one, cohort.masked(one))
    cohort.sum.close_vectors()
    refused(IntegrityError, lambda: cohort.opened(odd))  # asked about a site it was never told of
    for one in cohort.ids[1:]:
        cohort.sum.add_opened(one, cohort.opened(one))
    assert not np.any(fixedpoint.from_ring(cohort.sum.open()) == cohort.expected())


def test_terms_that_would_hide_nothing() -> None:
    """No field of the manifest sets a ring, a mask or a threshold; what would weaken them is refused."""
    for bad in (
        {"min_cohort": 1},
        {"min_survivors": 1},
        {"min_survivors": 4},
        {"colluding": 2},
        {"corrupt": 0.9},
        {"corrupt": 0.0},
        {"dropped": 0.01},
    ):
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


def _fields(manifest: Manifest) -> dict[str, Any]:
    return {name: getattr(manifest, name) for name in ("purpose", "sites", "fields", "terms", "noise")}


def test_a_seed_appears_in_no_text() -> None:
    cohort = until_masked(3)
    for state in cohort.states.values():
        assert repr(state.secret)[2:-1] not in repr(state)
        assert repr(state.mask_private)[2:-1] not in repr(state)
    assert repr(Mask(b"k" * 32)) == "Mask(sign=1)"
