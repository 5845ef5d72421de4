"""SA-1 byte for byte: the committed vectors, and the published ones of every primitive under it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedsite.protocol import ids
from fedsite.protocol.keys import SigningKey, hkdf
from fedsite.protocol.secagg import agreement, context, masking, shamir
from fedsite.protocol.secagg.advert import Advert, Roster
from fedsite.protocol.secagg.context import Attempt
from fedsite.protocol.secagg.masking import BLOCK, Mask
from tests.mask_words import words

KNOWN = json.loads((Path(__file__).parents[2] / "golden" / "sa1.json").read_text())
SITES = [bytes.fromhex(site) for site in KNOWN["site_ids"]]
ATTEMPT = Attempt(
    run_id=ids.run_id(bytes.fromhex(KNOWN["run_id"])),
    round=KNOWN["round"],
    attempt=KNOWN["attempt"],
    manifest_hash=bytes.fromhex(KNOWN["manifest_hash"]),
)


def secret(label: str, site: bytes) -> bytes:
    return hashlib.sha256(label.encode() + site).digest()


def key(label: str, site: bytes) -> agreement.Key:
    return agreement.key_of(secret(label, site))


def advert(site: bytes) -> Advert:
    publics = [agreement.public_of(secret(label, site)) for label in ("sk_mask", "sk_enc")]
    return Advert(site + publics[0] + publics[1] + hashlib.sha256(secret("b", site)).digest() + bytes(64))


ROSTER = Roster.of([advert(site) for site in SITES])
SESSION = bytes.fromhex(KNOWN["session"])
SALT = bytes.fromhex(KNOWN["salt"])


def test_keys_are_the_vectors() -> None:
    assert [entry.mask_public.hex() for entry in ROSTER.adverts] == KNOWN["pk_mask"]


def test_contexts() -> None:
    ctx = ATTEMPT.ctx(bytes.fromhex(KNOWN["model_hash"]))
    roster = context.roster_hash([entry.raw for entry in ROSTER.adverts])
    assert ATTEMPT.adv_ctx.hex() == KNOWN["adv_ctx"]
    assert ctx.hex() == KNOWN["ctx"]
    assert roster.hex() == KNOWN["roster_hash"]
    assert context.session(ctx, roster) == SESSION
    assert context.set_hash(reversed(SITES)).hex() == KNOWN["set_hash_all"]
    assert context.salt(SESSION, SITES) == SALT


@pytest.mark.parametrize(("i", "j", "name"), [(0, 1, "11-22"), (0, 2, "11-33"), (1, 2, "22-33")])
def test_pair_seeds_from_either_end(i: int, j: int, name: str) -> None:
    for here, there in ((i, j), (j, i)):
        public = ROSTER.adverts[there].mask_public
        seed = agreement.pair_seed(key("sk_mask", SITES[here]), public, SALT, SITES[here], SITES[there])
        assert seed.hex() == KNOWN["pair_seeds"][name]


def test_self_seeds() -> None:
    for site, name in zip(SITES, ("11", "22", "33"), strict=True):
        assert agreement.self_seed(secret("b", site), SALT, site).hex() == KNOWN["self_seeds"][name]


def test_an_encrypted_share() -> None:
    one, two = SITES[:2]
    assert context.share_aad(SESSION, one, two).hex() == KNOWN["share_aad_0_to_1"]
    private, public = key("sk_enc", one), ROSTER.adverts[1].share_public
    sealed = agreement.encrypt_share(private, public, SESSION, one, two, b"\x01" * 65)
    assert sealed.hex() == KNOWN["share_ciphertext_of_65_bytes_01"]
    private, public = key("sk_enc", two), ROSTER.adverts[0].share_public
    assert agreement.decrypt_share(private, public, SESSION, one, two, sealed) == b"\x01" * 65


def test_the_mask_stream() -> None:
    known = KNOWN["mask_stream"]
    found = words(bytes.fromhex(known["seed"]), 2 * BLOCK)
    assert known["block_bytes"] == 4 * BLOCK
    assert found[:8].astype("<u4").tobytes().hex() == known["block0_first32"]
    assert found[BLOCK : BLOCK + 8].astype("<u4").tobytes().hex() == known["block1_first32"]


def test_shares_of_a_secret() -> None:
    known = KNOWN["shamir"]
    coefficients = bytes.fromhex("".join(known["coefficients"]))
    shares = shamir.share(bytes.fromhex(known["secret"]), 255, known["threshold"], lambda count: coefficients[:count])
    assert {x: shares[int(x) - 1].tobytes().hex() for x in known["shares"]} == known["shares"]


def test_masked_vectors_of_three_sites() -> None:
    known = KNOWN["masking"]
    for index, (site, name) in enumerate(zip(SITES, ("11", "22", "33"), strict=True)):
        masks = [Mask(agreement.self_seed(secret("b", site), SALT, site))]
        for other in SITES[:index] + SITES[index + 1 :]:
            public = ROSTER.of_site(other).mask_public
            seed = agreement.pair_seed(key("sk_mask", site), public, SALT, site, other)
            masks.append(Mask(seed, 1 if site < other else -1))
        vector = np.array(known["inputs"][name], np.uint32)
        masking.apply(vector, masks)
        assert vector.tolist() == known["masked"][name]


def test_x25519_of_rfc_7748() -> None:
    """Section 5.2, first vector."""
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    found = agreement._exchange(agreement.key_of(scalar), point, b"")
    assert found.hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


def test_hkdf_of_rfc_5869() -> None:
    """Appendix A.1."""
    salt, info = bytes.fromhex("000102030405060708090a0b0c"), bytes.fromhex("f0f1f2f3f4f5f6f7f8f9")
    assert hkdf(b"\x0b" * 22, salt, info, 42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_ctr_of_sp_800_38a() -> None:
    """Section F.5.5: the cipher and mode that the mask stream is an AES-GCM view of."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")
    assert Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor().update(plain).hex() == (
        "601ec313775789a5b7a7f504bbf3d228"
    )


def test_the_stream_is_plain_counter_mode() -> None:
    key, block = bytes(range(32)), 7
    counter = block.to_bytes(12, "big") + (2).to_bytes(4, "big")
    expected = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor().update(bytes(4 * BLOCK))
    found = np.zeros(BLOCK, np.uint32)
    masking.apply(found, [Mask(key)], first_block=block)
    assert found.astype("<u4").tobytes() == expected


def test_the_chacha_stream_of_rfc_8439() -> None:
    """Section 2.3.2's block function, at the counter that encryption starts from (1)."""
    key, nonce = bytes(range(32)), (3).to_bytes(12, "big")
    counter = (1).to_bytes(4, "little") + nonce
    expected = Cipher(algorithms.ChaCha20(key, counter), None).encryptor().update(bytes(64))
    found = np.zeros(16, np.uint32)
    masking.apply(found, [Mask(key)], stream="chacha20", first_block=3)
    assert found.astype("<u4").tobytes() == expected
    rfc = (1).to_bytes(4, "little") + bytes.fromhex("000000090000004a00000000")
    first = Cipher(algorithms.ChaCha20(key, rfc), None).encryptor().update(bytes(16))
    assert first.hex() == "10f1e7e4d13b5915500fdd1fa32071c4"


def test_ed25519_of_rfc_8032() -> None:
    """Section 7.1, test 2."""
    key = SigningKey(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert key.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
