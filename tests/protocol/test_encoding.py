"""`enc` byte for byte, and that no two lists of fields share an encoding."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol.encoding import be32, be64, enc, sha256
from fedsite.protocol.errors import DocumentError

KNOWN = json.loads((Path(__file__).parents[1] / "golden" / "encoding.json").read_text())
fields = st.lists(st.binary(max_size=12) | st.integers(0, 2**64 - 1), max_size=4)


def test_known_bytes() -> None:
    example = KNOWN["enc_example"]
    taken = [bytes.fromhex(field) if isinstance(field, str) else field for field in example["fields"]]
    assert enc(example["label"], *taken).hex() == example["bytes"]


def test_known_hashes_of_contexts() -> None:
    run, model, manifest = (bytes.fromhex(KNOWN[name]) for name in ("run_id", "model_hash", "manifest_hash"))
    attempt = (KNOWN["round"], KNOWN["attempt"])
    assert sha256(enc("fedsite/sa1/advertise", run, *attempt, manifest)).hex() == KNOWN["adv_ctx"]
    assert sha256(enc("fedsite/sa1", run, *attempt, model, manifest)).hex() == KNOWN["ctx"]
    ids = [bytes.fromhex(item) for item in KNOWN["site_ids"]]
    assert sha256(enc("fedsite/sa1/set", *ids)).hex() == KNOWN["set_hash_all"]


@given(fields, fields)
def test_different_fields_have_different_bytes(first: list, second: list) -> None:
    def plain(items: list) -> list[bytes]:
        return [item.to_bytes(8, "big") if isinstance(item, int) else item for item in items]

    assert (enc("l", *first) == enc("l", *second)) == (plain(first) == plain(second))


@pytest.mark.parametrize("value", [-1, 2**64])
def test_an_integer_out_of_range_is_refused(value: int) -> None:
    for encode in (be32, be64, lambda number: enc("l", number)):
        with pytest.raises(DocumentError):
            encode(value)


def test_a_label_is_ascii() -> None:
    with pytest.raises(DocumentError):
        enc("ß", b"")
