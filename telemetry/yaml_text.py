"""YAML as people write it, read strictly: file and line of what is malformed, no key twice, numbers read as numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from fedsite.telemetry.errors import TaskError

MAX_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 1e-5 for text; everybody who writes it means a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def read_file(path: Path) -> Any:
    """Read one YAML file.

    Raises:
        TaskError: the file cannot be read, is too large, or is not YAML; the message names file and line.
    """
    return parse_bytes(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        TaskError: it cannot be read, or is too large.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TaskError(
            f"file {path} cannot be read ({error.strerror})", allowed="a YAML file", next_step=f"check the path {path}"
        ) from None
    if len(data) > MAX_BYTES:
        raise TaskError(f"file {path} has {len(data)} bytes", allowed=f"at most {MAX_BYTES}")
    return data


def parse_bytes(data: bytes, path: Path) -> Any:
    """Parse the bytes of a YAML file.

    Raises:
        TaskError: it is not UTF-8, or not YAML; the message names file and line.
    """
    try:
        return parse(data.decode("utf-8"), str(path), f"file {path}")
    except UnicodeDecodeError as error:
        raise TaskError(
            f"file {path} is not UTF-8 at byte {error.start}", allowed="UTF-8 text", next_step=f"save {path} as UTF-8"
        ) from None


def parse(text: str, name: str, what: str = "") -> Any:
    """Parse YAML text; `name` stands for it in messages, and `what` for it with its kind (`file x.yaml`).

    Raises:
        TaskError: malformed; the message names `name` and the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise TaskError(
            f"{what or name}{line}: {error.problem or error.context}", allowed="YAML", next_step=f"edit {name}"
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise TaskError(
            f"{what or name} is not YAML ({type(error).__name__})", allowed="YAML", next_step=f"edit {name}"
        ) from None
