"""A signed document as one file: {"signature": base64, "signed": {…}}.

The signature covers a label and the canonical bytes of `signed`, so white space and key order do not matter, and a
document of one kind is never taken for another.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from fedsite.protocol import documents
from fedsite.protocol.encoding import enc
from fedsite.protocol.errors import DocumentError
from fedsite.protocol.keys import SigningKey, VerifyKey, unbase64


def wrap(label: str, value: Mapping[str, Any], key: SigningKey) -> bytes:
    """Sign a document.

    Raises:
        DocumentError: it holds something JSON cannot.
    """
    signature = key.sign(enc(label, documents.canonical(value)))
    return documents.canonical({"signature": base64.b64encode(signature).decode("ascii"), "signed": value})


def unwrap(label: str, data: bytes, key: VerifyKey, what: str, *, limit: int) -> dict[str, Any]:
    """The document inside, once its signature is checked.

    Args:
        label: as in `wrap`.
        data: the file.
        key: whose signature is asked for.
        what: names the document in messages.
        limit: the largest file taken, in bytes.

    Raises:
        DocumentError: not such a file.
        TrustError: the signature does not verify.
    """
    value = documents.parse(data, limit=limit)
    if not isinstance(value, dict) or set(value) != {"signature", "signed"} or not isinstance(value["signed"], dict):
        raise DocumentError(f"{what} is not a signed document", allowed="an object with keys signature and signed")
    signed: dict[str, Any] = value["signed"]
    key.verify(unbase64(value["signature"], f"signature of the {what}"), enc(label, documents.canonical(signed)), what)
    return signed
