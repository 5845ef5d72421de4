"""Reading a document into a frozen dataclass: unknown keys, missing keys and wrong types are named by their path."""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
import sys
import types
import typing
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from fedsite.protocol.errors import ConfigError, DocumentError

T = TypeVar("T")


def read(kind: type[T], value: Any, path: str = "") -> T:
    """Build `kind` (a dataclass, nested as deep as it likes) from plain JSON values.

    Supported field types: bool, int, float, str, None unions, `Literal`, tuples `tuple[X, ...]`, `dict[str, X]`,
    other dataclasses, and `Any`. A `float` field takes an integer. Defaults fill what is missing.

    Raises:
        DocumentError: unknown or missing key, wrong type; the message names the path ("plan.rounds.count").
    """
    if not isinstance(value, Mapping):
        raise DocumentError(f"{path or 'document'} is {reprlib.repr(value)}", allowed="an object")
    hints = _hints(typing.cast(Hashable, kind))
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in value:
        if key not in fields:
            raise DocumentError(f"unknown key {_join(path, str(key))}", allowed=nearest(str(key), list(fields)))
    arguments: dict[str, Any] = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _convert(hints[name], value[name], _join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise DocumentError(f"missing key {_join(path, name)}", allowed=f"keys {', '.join(fields)}")
    try:
        return kind(**arguments)
    except ConfigError as error:
        # A `__post_init__` names its own field; the path says where that field stands.
        error.found = f"{path}: {error.found}" if path else error.found
        raise


def plain(value: Any) -> Any:
    """The JSON value of a dataclass tree: the inverse of `read`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


@lru_cache(maxsize=256)
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(hint, value, path)
    if origin is typing.Literal:
        if value in typing.get_args(hint) and not isinstance(value, bool):
            return value
        raise DocumentError(
            f"{path} is {reprlib.repr(value)}", allowed=", ".join(str(item) for item in typing.get_args(hint))
        )
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise DocumentError(f"{path} is {reprlib.repr(value)}", allowed="a list")
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise DocumentError(f"{path} is {reprlib.repr(value)}", allowed="an object")
        inner = typing.get_args(hint)[1] if origin is dict else Any
        return {str(key): _convert(inner, item, _join(path, str(key))) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return read(typing.cast(type, hint), value, path)
    return _convert_scalar(hint, value, path)


def _convert_union(hint: Any, value: Any, path: str) -> Any:
    options = typing.get_args(hint)
    if value is None and type(None) in options:
        return None
    rest = [option for option in options if option is not type(None)]
    failure = DocumentError(f"{path} is {reprlib.repr(value)}", allowed=str(hint))
    for option in rest:
        try:
            return _convert(option, value, path)
        except DocumentError as error:
            failure = error
    raise failure


def _convert_scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        # YAML spells NaN and infinity, and its integers are of any size; no document of ours holds either.
        if abs(value) <= sys.float_info.max:
            return float(value)
        raise DocumentError(f"{path} is {reprlib.repr(value)}", allowed="a finite number")
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (bool, str) and isinstance(value, hint):
        return value
    name = {float: "a number", int: "an integer", bool: "true or false", str: "text"}.get(hint, str(hint))
    raise DocumentError(f"{path} is {reprlib.repr(value)}", allowed=name)


def nearest(word: str, known: list[str]) -> str:
    """The known words as text, with the nearest one to `word` pointed out."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return ", ".join(known) + hint


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
