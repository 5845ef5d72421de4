"""Canonical JSON documents: one byte string per value, so that a hash or a signature means one thing.

Source: RFC 8785 (JSON Canonicalization Scheme). Stricter than the RFC on input: NaN, infinities, duplicate keys,
integers that are not exact as doubles, lone surrogates and values nested deeper than 64 levels are refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from fedsite.protocol.errors import DocumentError, RefusalCode

_TYPE_NAMES = {
    dict: "object",
    list: "array",
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
}
MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 64


def canonical(value: Any) -> bytes:
    """Encode a JSON value as RFC 8785 bytes.

    Raises:
        DocumentError: the value holds something JSON cannot (NaN, a non-string key, an object of ours).
    """
    try:
        return _encode(value, MAX_DEPTH).encode("utf-8")
    except UnicodeEncodeError:
        raise DocumentError("text with a lone surrogate", allowed="Unicode text") from None


def parse(data: bytes, *, limit: int = 8 << 20) -> Any:
    """Decode JSON strictly.

    Args:
        data: UTF-8 JSON.
        limit: the largest size taken, in bytes.

    Raises:
        DocumentError: too large, not UTF-8, not JSON, NaN, a duplicate key, nested too deep.
    """
    if len(data) > limit:
        raise DocumentError(f"document of {len(data)} bytes", allowed=f"at most {limit} bytes")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DocumentError(f"not a JSON document ({type(error).__name__})", allowed="UTF-8 JSON") from None
    _check_text(value, MAX_DEPTH)
    return value


def document(data: bytes, schema: str, *, limit: int = 8 << 20) -> dict[str, Any]:
    """Decode a JSON object and check its `schema` field ("fedsite.plan/1").

    Raises:
        DocumentError: as `parse`, or another schema; an unknown major version says to upgrade.
    """
    return object_of(parse(data, limit=limit), schema)


def object_of(value: Any, schema: str) -> dict[str, Any]:
    """A decoded value as an object of a schema.

    Raises:
        DocumentError: no object, or another schema; an unknown major version says to upgrade.
    """
    if not isinstance(value, dict):
        found = _TYPE_NAMES.get(type(value), "a value")
        raise DocumentError(f"document is {found}", allowed=f"an object with schema {schema}")
    check_schema(value, schema)
    return value


def check_schema(value: Mapping[str, Any], schema: str) -> None:
    """Check the `schema` field of an object.

    Raises:
        DocumentError: another schema or an unknown major version.
    """
    found = value.get("schema")
    if found == schema:
        return
    name = schema.rpartition("/")[0]
    if isinstance(found, str) and found.rpartition("/")[0] == name:
        raise DocumentError(
            f"schema {found}",
            allowed=schema,
            next_step="upgrade the older of the two ends: pip install --upgrade fedsite",
            refusal=RefusalCode.PROTOCOL_VERSION,
        )
    raise DocumentError(f"schema {found!r}", allowed=schema)


def digest(value: Any) -> str:
    """SHA-256 of the canonical bytes, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _encode(value: Any, depth: int) -> str:
    if depth < 0:
        raise DocumentError("a value nested too deep", allowed=f"{MAX_DEPTH} levels")
    if value is None or isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise DocumentError(f"integer {value}", allowed=f"within ±{MAX_INTEGER}")
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(_encode(item, depth - 1) for item in value) + "]"
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise DocumentError(f"key {key!r}", allowed="string keys")
        # RFC 8785 sorts by UTF-16 code units, not by code points.
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{_encode(key, depth)}:{_encode(value[key], depth - 1)}" for key in keys) + "}"
    raise DocumentError(f"a {type(value).__name__} in a document", allowed="JSON values")


def _number(value: float) -> str:
    """ECMAScript Number::toString, as RFC 8785 section 3.2.2.3 asks."""
    if not math.isfinite(value):
        raise DocumentError(f"number {value}", allowed="finite numbers")
    if value == 0:
        return "0"
    mantissa, _, exponent = float.__repr__(abs(float(value))).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len((whole + fraction).lstrip("0")))
    digits = digits.rstrip("0") or "0"
    count = len(digits)
    if count <= point <= 21:
        text = digits + "0" * (point - count)
    elif 0 < point <= 21:
        text = digits[:point] + "." + digits[point:]
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        power = point - 1
        text = digits[0] + ("." + digits[1:] if count > 1 else "") + "e" + ("+" if power > 0 else "-") + str(abs(power))
    return ("-" if value < 0 else "") + text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DocumentError(f"duplicate key {key!r}", allowed="each key once")
        found[key] = value
    return found


def _constant(name: str) -> NoReturn:
    raise DocumentError(f"number {name}", allowed="finite numbers")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise DocumentError(f"number {text[:32]}", allowed="finite numbers")
    return value


def _check_text(value: Any, depth: int) -> None:
    """Refuse what `canonical` could not write: JSON's escapes can spell half of a surrogate pair."""
    if depth < 0:
        raise DocumentError("a value nested too deep", allowed=f"{MAX_DEPTH} levels")
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise DocumentError("text with a lone surrogate", allowed="Unicode text") from None
    elif isinstance(value, list):
        for item in value:
            _check_text(item, depth - 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, depth)
            _check_text(item, depth - 1)


def _integer(text: str) -> int | float:
    """Large floats print as integers: those come back as floats, and digits that no float prints are refused."""
    if len(text) < 17 and abs(int(text)) <= MAX_INTEGER:
        return int(text)
    value = float(text) if len(text) < 24 else math.inf
    if not math.isfinite(value) or _number(value) != text:
        raise DocumentError(f"integer {text[:32]}", allowed=f"within ±{MAX_INTEGER}")
    return value
