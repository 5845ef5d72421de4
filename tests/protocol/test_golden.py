"""Bytes that must never change within version 1: an instruction, a reply, a token, a manifest, a sealed blob.

`python tests/protocol/test_golden.py` writes the file anew; a new major version of a schema is the only reason to.
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.protocol import release, sealing, signing, tokens, weights
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, Header, ReplyHeader
from fedsite.protocol.release import Golden, Normalisation, Parity, Tensor
from fedsite.protocol.sealing import RunKey

GOLDEN = Path(__file__).parents[1] / "golden" / "messages.json"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

CENTRE, SITE = (SigningKey(hashlib.sha256(word).digest()) for word in (b"golden centre", b"golden site"))
RUN_KEY = RunKey(hashlib.sha512(b"golden run key").digest() + hashlib.sha256(b"golden run key").digest())
FEDERATION = Federation(
    id=CENTRE.public.id,
    name="golden",
    address="fl.example.org:9443",
    ca_certificate="-----BEGIN CERTIFICATE-----\nnone here\n-----END CERTIFICATE-----\n",
    signing_key=CENTRE.public.text,
)
MODEL = {"0.weight": np.array([[1.0, -2.0]], np.float32), "0.bias": np.array([0.5], np.float32)}
VALUES = {"delta/0.weight": np.array([[0.25, 0.5]], np.float32), "weight": np.array([1.0], np.float32)}
PLAN_HASH = "ab" * 32


def instruction() -> Frame:
    header = Header(
        kind="train",
        federation=FEDERATION.id,
        site_id=SITE.public.id,
        run_id="01ARYZ6S410000000000000000",
        round=1,
        attempt=1,
        plan_hash=PLAN_HASH,
        model_hash=weights.digest(MODEL),
        run_key=RUN_KEY.public,
        expires="2026-01-02T03:06:05Z",
        body={"evaluate": True, "normalisation": {"mean": [0.0, 1e-7], "scale": [1.0, 1e21]}},
    )
    return signing.sign_instruction(header, {"model": weights.encode(MODEL)}, CENTRE)


def reply(sealed: bytes) -> Frame:
    asked = instruction()
    header = ReplyHeader(
        kind="train",
        federation=FEDERATION.id,
        site_id=SITE.public.id,
        run_id="01ARYZ6S410000000000000000",
        round=1,
        attempt=1,
        instruction=signing.instruction_hash(asked),
        outcome="ok",
    )
    return signing.sign_reply(header, {"sealed": sealed}, SITE)


def manifest() -> bytes:
    ones = np.ones((1, 2, 1), np.float32)
    made = release.make(
        b"model",
        version="golden-0001",
        federation=FEDERATION.id,
        run_id="01ARYZ6S410000000000000000",
        plan_hash=PLAN_HASH,
        task={"schema": "fedsite.task/1", "name": "golden"},
        normalisation=Normalisation(mean=(0.0,), scale=(1.0,)),
        fp32_bytes=20,
        parity=Parity(metric="rmse", fp32=1.0, int8=1.01),
        golden=Golden(inputs=Tensor.pack(ones), outputs=Tensor.pack(ones[:, 0]), tolerance=0.001),
        created="2026-01-02T03:04:05Z",
    )
    return release.sign(made, CENTRE)


def build(sealed: bytes) -> dict[str, Any]:
    """Everything that is a function of the keys above; a sealed blob is not, it is given."""
    token = tokens.create(FEDERATION, CENTRE, expires_s=3600, label="golden", now=NOW, random=lambda n: bytes(range(n)))
    found: dict[str, Any] = {
        "federation": FEDERATION.encode().decode(),
        "token": token,
        "manifest": manifest().decode(),
    }
    for name, frame in (("instruction", instruction()), ("reply", reply(sealed))):
        found[name] = {
            "header": frame.header.decode(),
            "signature": frame.signature.hex(),
            "blobs": {key: blob.hex() for key, blob in frame.blobs.items()},
        }
    return found


def read(found: dict[str, Any]) -> Frame:
    blobs = {name: bytes.fromhex(text) for name, text in found["blobs"].items()}
    return Frame(header=found["header"].encode(), signature=bytes.fromhex(found["signature"]), blobs=blobs)


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDEN.read_text())
    return found


@pytest.mark.parametrize("name", ["federation", "token", "manifest", "instruction", "reply"])
def test_bytes_stay_as_they_are(name: str, golden: dict[str, Any]) -> None:
    sealed = bytes.fromhex(golden["reply"]["blobs"]["sealed"])
    assert build(sealed)[name] == golden[name]


def test_the_golden_bytes_open(golden: dict[str, Any]) -> None:
    federation = Federation.parse(golden["federation"].encode())
    asked = signing.open_instruction(read(golden["instruction"]), federation, SITE.public.id, NOW)
    model = weights.decode(read(golden["instruction"]).blobs["model"], limit=1 << 20)
    assert weights.digest(model) == asked.model_hash
    answered = read(golden["reply"])
    signing.open_reply(answered, SITE.public, instruction=golden["instruction"]["header"].encode())
    payload = RUN_KEY.open(answered.blobs["sealed"], sealing.context(asked), asked.site_id)
    values = weights.decode(payload, limit=1 << 20)
    assert {name: value.tolist() for name, value in values.items()} == {
        "delta/0.weight": [[0.25, 0.5]],
        "weight": [1.0],
    }
    assert tokens.verify(golden["token"], federation, NOW).label == "golden"
    release.check_model(release.verify(golden["manifest"].encode(), federation, NOW), b"model")


if __name__ == "__main__":
    asked_for = signing.open_instruction(instruction(), FEDERATION, SITE.public.id, NOW)
    blob = sealing.seal(weights.encode(VALUES), RUN_KEY.public, sealing.context(asked_for), SITE.public.id)
    GOLDEN.write_text(json.dumps(build(blob), indent=2, ensure_ascii=False) + "\n")
