"""Reading a plain value into frozen dataclasses: a wrong key or value is named by its path, with the nearest right one.

Telemetry may not import `protocol.shape`, and its documents are written by hand: so one mapping stands for a list of
one, `null` for an empty list, and numbers, texts and booleans are never guessed from each other.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from functools import lru_cache
from pathlib import PurePath
from typing import Any, TypeVar

from fedsite.telemetry.errors import TaskError

T = TypeVar("T")

_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}


def read(kind: type[T], value: Any, path: str = "") -> T:
    """Build the dataclass `kind`, nested as deep as it likes, from plain values.

    Raises:
        TaskError: unknown or missing key, wrong type, or a value its owner refuses; the message names the path.
    """
    if not isinstance(value, Mapping):
        found = "empty" if value is None else f"{value!r:.80}"
        raise TaskError(f"{path or 'the document'} is {found}", allowed="a mapping of keys to values")
    hints = _hints(typing.cast(Hashable, kind))
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in value:
        if key not in fields:
            raise TaskError(f"unknown key {join(path, str(key))}", allowed=nearest(str(key), fields))
    arguments: dict[str, Any] = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _convert(hints[name], value[name], join(path, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise TaskError(f"missing key {join(path, name)}", allowed=f"keys {', '.join(fields)}")
    try:
        return kind(**arguments)
    except TaskError as error:
        # A `__post_init__` names its own field; the path says where that field stands.
        found = f"{path}.{error.found}" if path else error.found
        raise TaskError(found, allowed=error.allowed, next_step=error.next_step) from None


def plain(value: Any) -> Any:
    """The plain value of a dataclass tree: `read` of it gives an equal tree."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def check(name: str, value: float, low: float, high: float) -> None:
    """Refuse a value out of range; the reader puts the path before the name."""
    if not low <= value <= high:
        raise TaskError(f"{name} is {value}", allowed=f"{low} to {high}")


def check_below(name: str, value: str) -> None:
    """Refuse a path that leads out of the folder it stands for: a task may come from somebody else's hands."""
    path = PurePath(value)
    if path.is_absolute() or ".." in path.parts or value.startswith("~") or "\0" in value:
        raise TaskError(
            f"{name} is {value!r}",
            allowed="a path below the data folder, without '..'",
            next_step="a file elsewhere is the site's own to name: data.path=FILE_OR_FOLDER",
        )


def nearest(word: str, known: Iterable[str]) -> str:
    """The known words as text, with the nearest one to `word` pointed out."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return ", ".join(names) + (f" (did you mean {close[0]}?)" if close else "")


def join(path: str, name: str) -> str:
    """The path of a key below another."""
    return f"{path}.{name}" if path else name


@lru_cache(maxsize=64)
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(typing.get_args(hint), value, path)
    if origin is typing.Literal:
        options = typing.get_args(hint)
        if value in options and not isinstance(value, bool):
            return value
        raise TaskError(f"{path} is {value!r}", allowed=nearest(str(value), [str(option) for option in options]))
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint), value, path)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise TaskError(f"{path} is {value!r}", allowed="a mapping of keys to values")
        inner = typing.get_args(hint)[1]
        return {str(key): _convert(inner, item, join(path, str(key))) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return read(typing.cast(type, hint), value, path)
    return _convert_scalar(hint, value, path)


def _convert_tuple(arguments: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if arguments[-1] is not ...:
        if not isinstance(value, list | tuple) or len(value) != len(arguments):
            raise TaskError(f"{path} is {value!r}", allowed=f"a list of {len(arguments)}")
        return tuple(_convert(arguments[i], item, f"{path}[{i}]") for i, item in enumerate(value))
    if value is None:
        return ()
    if dataclasses.is_dataclass(arguments[0]) and isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        raise TaskError(f"{path} is {value!r}", allowed="a list")
    return tuple(_convert(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value))


def _convert_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in options:
        return None
    failures = []
    for option in options:
        if option is not type(None):
            try:
                return _convert(option, value, path)
            except TaskError as error:
                failures.append(error)
    # A key inside the value is the more useful thing to name.
    deepest = max(failures, key=lambda error: error.found.count("."))
    if len(failures) == 1 or deepest.found.count(".") > path.count("."):
        raise deepest
    raise TaskError(failures[0].found, allowed=" or ".join(error.allowed for error in failures))


def _convert_scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (bool, str) and isinstance(value, hint):
        return value
    raise TaskError(f"{path} is {value!r}", allowed=_WORDS.get(hint, str(hint)))
