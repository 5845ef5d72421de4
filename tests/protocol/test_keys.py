"""Keys: RFC vectors, files that only their owner reads, and nothing secret in a repr."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedsite.protocol import keys
from fedsite.protocol.errors import FedsiteError, StorageError, TrustError
from fedsite.protocol.keys import NodeKey, SigningKey, TlsKey, VerifyKey


# RFC 8032 section 7.1, tests 1 to 3.
@pytest.mark.parametrize(
    ("seed", "public", "message", "signature"),
    [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ],
)
def test_ed25519_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey(bytes.fromhex(seed))
    assert key.public.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    key.public.verify(bytes.fromhex(signature), bytes.fromhex(message))


def test_hkdf_of_rfc_5869_a1() -> None:
    found = keys.hkdf(
        bytes.fromhex("0b" * 22), bytes.fromhex("000102030405060708090a0b0c"), bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), 42
    )
    assert found.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


def test_a_wrong_signature_is_refused(site_key: SigningKey) -> None:
    good = site_key.sign(b"m")
    for signature, message in ((good, b"n"), (good[:-1], b"m"), (b"", b"m"), (bytes(64), b"m"), (good + b"0", b"m")):
        with pytest.raises(TrustError, match="does not verify"):
            site_key.public.verify(signature, message)
    with pytest.raises(TrustError):
        SigningKey.generate().public.verify(good, b"m")
    with pytest.raises(TrustError):
        VerifyKey(bytes(32)).verify(good, b"m")


def test_public_key_text_round_trip(site_key: SigningKey) -> None:
    assert VerifyKey.parse(site_key.public.text) == site_key.public
    for text in ("", "x", "AAAA", "é", site_key.public.text + "\n", site_key.public.text[:-1]):
        with pytest.raises(TrustError):
            VerifyKey.parse(text)


@pytest.mark.parametrize("kind", [SigningKey, NodeKey, TlsKey])
def test_a_saved_key_is_private_and_loads_again(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "x.key"
    key = kind.generate()
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = tmp_path / "again.key"
    kind.load(path).save(again)
    assert public(kind.load(again)) == public(key)
    path.chmod(0o640)
    with pytest.raises(TrustError, match="0640") as raised:
        kind.load(path)
    assert raised.value.next_step == f"chmod 600 {path}"


def public(key: SigningKey | NodeKey | TlsKey) -> object:
    return key.public if isinstance(key, SigningKey) else key.private.public_key()


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    for kind in (SigningKey, NodeKey, TlsKey):
        path = tmp_path / kind.__name__
        kind.generate().save(path)
        for other in (SigningKey, NodeKey, TlsKey):
            if other is not kind:
                with pytest.raises(TrustError, match="holds a"):
                    other.load(path)


@pytest.mark.parametrize("data", [b"", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", b"-----BEGIN PRIVATE KEY-----"])
def test_a_damaged_key_file_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.key"
    path.touch(mode=0o600)
    path.write_bytes(data)
    for kind in (SigningKey, NodeKey, TlsKey):
        with pytest.raises(TrustError, match="not a private key"):
            kind.load(path)
    with pytest.raises(StorageError):
        SigningKey.load(tmp_path / "missing")


def test_nothing_secret_in_a_repr(site_key: SigningKey) -> None:
    for key in (site_key, NodeKey.generate(), TlsKey.generate()):
        assert repr(key).removesuffix("()") in {"SigningKey", "NodeKey", "TlsKey"}


def test_derived_keys_depend_on_purpose_and_key(site_key: SigningKey) -> None:
    found = {site_key.derive("a"), site_key.derive("b"), SigningKey.generate().derive("a")}
    assert len(found) == 3
    assert {len(key) for key in found} == {32}
    assert site_key.derive("a") in found
    assert site_key.seed not in found


def test_node_key_from_outside() -> None:
    key = NodeKey.generate()
    assert keys.check_node_key(key.public_pem) == key.public_pem
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for bad in (pem, b"", key.public_pem[:-40], b"-----BEGIN PUBLIC KEY-----"):
        with pytest.raises(FedsiteError):
            keys.check_node_key(bad)
