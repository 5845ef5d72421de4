"""Holders that lie and makers of bad shares: the sum is exact, or the maker is named; no honest site is blamed."""

import hashlib
import os
import random
from collections.abc import Callable, Collection, Mapping

import numpy as np
import pytest

from fedsite.protocol.encoding import sha256
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.secagg import agreement, shamir
from fedsite.protocol.secagg.rebuild import Finder
from tests.secagg_cohort import Cohort, refused

Answers = Mapping[bytes, bytes]


def until_shared(
    count: int, cheat: bytes | None = None, plain: Callable[[bytes], bytes] = lambda holder: b""
) -> Cohort:
    """A cohort with U2; a cheat encrypts what it likes for its neighbours, where `plain` gives it anything."""
    cohort = Cohort(count)
    cohort.advertise()
    if cheat is None:
        cohort.share()
        return cohort
    encrypt = agreement.encrypt_share

    def encrypt_share(
        key: agreement.Key, public: bytes, session: bytes, source: bytes, to: bytes, share: bytes
    ) -> bytes:
        return encrypt(key, public, session, source, to, (plain(to) if source == cheat else b"") or share)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "encrypt_share", encrypt_share)
        cohort.share()
    return cohort


def opened(cohort: Cohort, liars: Collection[bytes], lie: Callable[[Answers], Answers], without: int = 0) -> None:
    """Every site of U3 but the last few answers."""
    for one in cohort.sum.u3[: len(cohort.sum.u3) - without]:
        answers = cohort.opened(one)
        cohort.sum.add_opened(one, lie(answers) if one in liars else answers)


def exact(cohort: Cohort) -> bool:
    return np.array_equal(cohort.sum.open().view(np.int32), cohort.expected())


def invented(answers: Answers) -> Answers:
    return {source: item[:1] + os.urandom(32) for source, item in answers.items()}


def now_and_then(answers: Answers) -> Answers:
    """A lie about some sources, drawn anew."""
    return {s: item[:1] + os.urandom(32) if random.random() < 0.5 else item for s, item in answers.items()}


def in_one_byte(answers: Answers) -> Answers:
    return {source: item[:7] + bytes([item[7] ^ 1]) + item[8:] for source, item in answers.items()}


@pytest.mark.parametrize("victims", [2, 5])
def test_shares_at_another_position_cost_nobody_else_anything(victims: int) -> None:
    """X writes x = 200 into valid ciphertexts: the holders leave these out and open all others."""
    first = Cohort(6).ids
    cheat, targets = first[0], first[1 : 1 + victims]
    cohort = until_shared(6, cheat, lambda holder: bytes([200]) + os.urandom(64) if holder in targets else b"")
    cohort.mask()
    for one in cohort.sum.u3:
        answers = cohort.opened(one)
        assert (cheat in answers) == (one not in targets)
        cohort.sum.add_opened(one, answers)
    if victims == 2:  # four holders are left, of whom four are needed
        assert exact(cohort)
        return
    refused(FedsiteError, cohort.sum.open)
    assert cohort.sum.at_fault == (cheat,)


def test_one_item_at_another_position_is_left_out_alone() -> None:
    cohort = until_shared(5)
    cohort.mask()
    opened(cohort, cohort.ids[:1], lambda answers: {**answers, cohort.ids[1]: bytes([200]) + bytes(32)})
    assert exact(cohort)


@pytest.mark.parametrize("lie", [invented, now_and_then, in_one_byte])
@pytest.mark.parametrize("count", [12, 15, 20])
def test_as_many_liars_as_half_of_the_spare_shares(count: int, lie: Callable[[Answers], Answers]) -> None:
    cohort = until_shared(count)
    liars = (count - (count // 2 + 1)) // 2
    cohort.mask(cohort.ids[1:] if lie is invented else None)  # a mask key has to be found as well
    opened(cohort, cohort.sum.u3[: liars - 1] if lie is invented else cohort.ids[:liars], lie)
    assert exact(cohort)
    assert cohort.sum.at_fault == ()


def test_fourteen_liars_of_eighty() -> None:
    """A choice of 51 holders by chance hits none of them once in 10^7 times."""
    finder = Finder(threshold=51)
    for number in range(20):
        secret = hashlib.sha256(b"%d" % number).digest()
        rows = shamir.share(secret, 100, 51)
        shares = {bytes([place]): bytes([place + 1]) + rows[place].tobytes() for place in range(80)}
        shares |= {bytes([place]): bytes([place + 1]) + os.urandom(32) for place in range(14)}
        assert finder.find(shares, sha256, sha256(secret)) == secret


@pytest.mark.parametrize("count", [3, 9, 20])
def test_one_liar_is_found_with_one_share_to_spare(count: int) -> None:
    """Nobody is blamed for what one liar says."""
    cohort = until_shared(count)
    cohort.mask()
    opened(cohort, cohort.ids[:1], invented, without=count - (count // 2 + 1) - 1)
    assert exact(cohort)
    assert cohort.sum.at_fault == ()


@pytest.mark.parametrize(("without", "named"), [(0, True), (1, True), (2, False)])
def test_who_made_bad_shares_is_named_where_one_liar_cannot_have_done_it(without: int, named: bool) -> None:
    """5 sites, 3 needed: as many as are needed might hold one liar who hides the secret, so nobody is named."""
    cheat = Cohort(5).ids[0]
    cohort = until_shared(5, cheat, lambda holder: bytes([Cohort(5).ids.index(holder) + 1]) + os.urandom(64))
    cohort.mask()
    opened(cohort, (), invented, without=without)
    refused(FedsiteError, cohort.sum.open)
    assert cohort.sum.at_fault == ((cheat,) if named else ())


def test_too_few_answers_are_nobodys_fault() -> None:
    cohort = until_shared(5)
    cohort.mask()
    opened(cohort, (), invented, without=3)
    refused(FedsiteError, cohort.sum.open)
    assert cohort.sum.at_fault == ()


def test_liars_are_asked_last_for_the_next_secret() -> None:
    """The first secret costs a search, the second is right at the first look."""
    looks: list[bytes] = []

    def image(secret: bytes) -> bytes:
        looks.append(secret)
        return sha256(secret)

    finder = Finder(threshold=4)
    names = [bytes([number]) * 16 for number in range(9)]
    for number in range(2):
        secret = hashlib.sha256(b"%d" % number).digest()
        rows = shamir.share(secret, 9, 4)
        shares = {name: bytes([place + 1]) + rows[place].tobytes() for place, name in enumerate(names)}
        shares |= {name: shares[name][:1] + os.urandom(32) for name in names[:2]}
        looks.clear()
        assert finder.find(shares, image, sha256(secret)) == secret
        assert (len(looks) > 1) == (number == 0)
    assert set(finder.wrong) == set(names[:2])


def test_no_lie_fits_beyond_what_can_be_found() -> None:
    """A secret is found or not: never another one."""
    rows = shamir.share(bytes(32), 6, 4)
    shares = {bytes([x]) * 16: bytes([x]) + os.urandom(32) for x in range(1, 7)}
    assert Finder(threshold=4).find(shares, sha256, sha256(bytes(32))) is None
    assert Finder(threshold=7).find({b"a": b"\x01" + rows[0].tobytes()}, sha256, b"") is None
