"""The two demonstrated breaks of Flower's SecAgg+, as attacks on its own functions and on ours.

Its pairwise masks come from MT19937 seeded with a key that is folded to 28 bits; and a client answers for a node that
is alive and dropped at once, which opens everything that node sent.
"""

import os
from collections.abc import Callable

import numpy as np
import pytest

from fedsite.protocol.errors import IntegrityError, RefusalCode
from fedsite.protocol.secagg import agreement, context, masking, shamir, site
from tests.mask_words import words
from tests.secagg_cohort import Cohort

RING = 1 << 32
KNOWN_BITS = 18  # of the 28 that the search would have to try: a test has no hour


@pytest.fixture(scope="module")
def flower_stream() -> Callable[[bytes, int], np.ndarray]:
    """Flower's mask generator: seed, words → words."""
    utils = pytest.importorskip("flwr.common.secure_aggregation.secaggplus_utils")
    return lambda seed, count: utils.pseudo_rand_gen(seed, RING, [(count,)])[0]


def fold(seed: bytes) -> int:
    """What is left of a key: the XOR of its 32-bit words."""
    return int(np.bitwise_xor.reduce(np.frombuffer(seed, "<u4")))


def guess(seed32: int, masked: np.ndarray) -> np.ndarray:
    """A vector under the mask that this seed gives, as signed numbers."""
    stream = np.random.RandomState(seed32).randint(0, RING - 1, len(masked), dtype=np.int64)
    return (masked.astype(np.int64) - stream).astype(np.uint32).view(np.int32)


def search(seed32: int, masked: np.ndarray) -> list[np.ndarray]:
    """Every vector of small numbers that lies under some seed with the known bits of `seed32`."""
    unknown = [bit for bit in range(32) if bit % 8 != 7][: 28 - KNOWN_BITS]
    known = seed32 & ~sum(1 << bit for bit in unknown)
    found = []
    for trial in range(1 << len(unknown)):
        candidate = known | sum((trial >> place & 1) << bit for place, bit in enumerate(unknown))
        vector = guess(candidate, masked)
        if np.abs(vector.astype(np.int64)).max() < 1 << 22:
            found.append(vector)
    return found


def test_flower_loses_a_vector_to_a_small_search(flower_stream: Callable[[bytes, int], np.ndarray]) -> None:
    """A passive server that holds one masked vector: the update is the only small vector under any seed."""
    crypto = pytest.importorskip("flwr.common.secure_aggregation.crypto.symmetric_encryption")
    keys = pytest.importorskip("flwr.supercore.primitives.asymmetric")
    seeds = [crypto.generate_shared_key(keys.generate_key_pairs()[0], keys.generate_key_pairs()[1]) for _ in range(20)]
    assert all(fold(seed) & 0x80808080 == 0 for seed in seeds)  # base64 text: 28 bits at most
    secret = np.arange(-8, 8, dtype=np.int64) * 1000
    masked = (secret + flower_stream(seeds[0], 16)) % RING
    found = search(fold(seeds[0]), masked)
    assert [vector.tolist() for vector in found] == [secret.tolist()]


def test_the_same_search_finds_nothing_in_ours() -> None:
    """Ours is a vector under a stream of AES-256: no folded seed, nor any near it, lays it bare."""
    cohort = Cohort(3, words=16)
    cohort.advertise()
    cohort.share()
    one, other = cohort.ids[:2]
    salt = context.salt(cohort.sum.session, cohort.sum.u2)
    key = agreement.key_of(cohort.states[one].mask_private)
    public = cohort.sum.roster.of_site(other).mask_public
    seed = agreement.pair_seed(key, public, salt, one, other)
    assert len(seed) == 32
    masked = cohort.masked(one).astype(np.int64)
    assert search(fold(seed), masked) == []


def test_keys_with_the_same_fold(flower_stream: Callable[[bytes, int], np.ndarray]) -> None:
    """Words of a key in another order fold to the same 32 bits: one stream for Flower, unrelated ones for us."""
    seed = os.urandom(32)
    turned = seed[4:] + seed[:4]
    assert np.array_equal(flower_stream(seed, 64), flower_stream(turned, 64))
    assert not np.any(words(seed, 64) == words(turned, 64))


@pytest.mark.parametrize("stream", ["aes256ctr", "chacha20"])
def test_every_bit_of_a_seed_counts(stream: masking.Stream) -> None:
    """2,048 bits of two streams differ in half of them, give or take six sigma (136), whichever bit was flipped."""
    seed = bytes(range(32))
    first = np.unpackbits(words(seed, 64, stream=stream).view(np.uint8))
    for bit in range(256):
        other = (int.from_bytes(seed, "big") ^ 1 << bit).to_bytes(32, "big")
        second = np.unpackbits(words(other, 64, stream=stream).view(np.uint8))
        assert abs(int((first != second).sum()) - 1024) < 136


def test_flower_answers_for_a_node_that_is_alive_and_dropped() -> None:
    """One message, and the server has both shares of node 7, one of them twice."""
    module = pytest.importorskip("flwr.client.mod.secure_aggregation.secaggplus_mod")
    state = module.SecAggPlusState()
    state.threshold, state.rd_seed_share_dict, state.sk1_share_dict = 2, {7: b"of b"}, {7: b"of the key"}
    asked = {module.Key.ACTIVE_NODE_ID_LIST: [7, 7], module.Key.DEAD_NODE_ID_LIST: [7]}
    answer = module._unmask(state, asked)
    assert answer[module.Key.SHARE_LIST] == [b"of b", b"of b", b"of the key"]


def test_ours_answers_one_share_for_a_neighbour_and_once() -> None:
    """A set names a site or it does not; named twice is refused; and nobody is answered a second time."""
    cohort = Cohort(6)
    cohort.advertise()
    cohort.share()
    cohort.mask()
    one, victim = cohort.ids[:2]
    before, alive = cohort.states[one], cohort.sum.u3
    dropped = tuple(other for other in alive if other != victim)
    with pytest.raises(IntegrityError) as caught:
        site.unmask(before, (*alive, victim), {}, {})
    assert caught.value.refusal is RefusalCode.MALFORMED
    for claim, where in ((alive, slice(0, 32)), (dropped, slice(32, 64))):
        state, answers = site.unmask(before, claim, {}, {})
        assert set(answers) == set(cohort.ids)
        assert all(len(item) == 33 for item in answers.values())
        with pytest.raises(IntegrityError) as caught:
            site.unmask(state, dropped if claim == alive else alive, {}, {})
        assert caught.value.refusal is RefusalCode.REPLAYED
        plain = _plain(cohort, one, victim)
        assert answers[victim] == plain[:1] + plain[1:][where]


def test_two_stories_about_one_site_open_neither_of_its_secrets() -> None:
    """Alive for half of its holders and dropped for the other half: with 2t > n + c no half reaches the threshold."""
    cohort = Cohort(6)
    cohort.advertise()
    cohort.share()
    cohort.mask()
    victim, others = cohort.ids[0], cohort.ids[1:]
    threshold = cohort.manifest.terms.size(6).threshold
    secrets = cohort.states[victim].secret, cohort.states[victim].mask_private
    own = cohort.opened(victim)[victim]  # it answers only when it is told that it is alive
    for told in range(len(others) + 1):  # how many holders hear that it is alive
        of_b, of_key = [own], []
        for number, one in enumerate(others):
            claim = cohort.sum.u3 if number < told else tuple(others)
            _, answers = site.unmask(cohort.states[one], claim, {}, {})
            (of_b if number < told else of_key).append(answers[victim])
        opened = [_opens(found, threshold, check) for found, check in zip((of_b, of_key), secrets, strict=True)]
        assert not all(opened)


def _plain(cohort: Cohort, holder: bytes, source: bytes) -> bytes:
    state = cohort.states[holder]
    public = cohort.sum.roster.of_site(source).share_public
    key = agreement.key_of(state.share_private)
    return agreement.decrypt_share(key, public, state.session, source, holder, state.sealed[source])


def _opens(found: list[bytes], threshold: int, secret: bytes) -> bool:
    """Whether the shares give the secret."""
    if len(found) < threshold:
        return False
    rows = np.frombuffer(b"".join(item[1:] for item in found[:threshold]), np.uint8).reshape(threshold, -1)
    return shamir.combine(rows, shamir.weights([item[0] for item in found[:threshold]])) == secret
