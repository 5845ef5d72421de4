"""A log with nothing in it but words of this program: what a traceback or a message quoted is cut out.

Nobody can list what a secret looks like, so this lists what is none: times at the start of a line, levels, words that
stand in this program's own messages, names of exceptions, and places in installed source files. All else becomes "·".
"""

from __future__ import annotations

import ast
import builtins
import re
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

import fedsite.client
import fedsite.protocol

LIMIT: Final = 200 << 10  # bytes of a log, the last ones
CUT: Final = "·"
_LINE: Final = 400  # characters
_PACKAGES: Final = ("client", "models", "privacy", "protocol", "telemetry")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(?:,\d{3}|Z)?(?= )")
_PLACE = re.compile(r'\s*File "([^"]{1,500})", line (\d{1,6})\b')
_TOKEN = re.compile(r"[A-Za-z]+|\S|\s+")
_WORD = re.compile(r"[A-Za-z]+")
_LEVELS: Final = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})
_SAYS: Final = frozenset({"debug", "info", "warning", "error", "exception"})
_PLAIN: Final = frozenset("()[]{},.:;=/-_'\"")
_FRAME: Final = frozenset({"Traceback", "most", "recent", "call", "last"})


def scrub(data: bytes) -> str:
    """The end of a log, line by line, without what was quoted in it."""
    text = data[-LIMIT:].decode("utf-8", "replace")
    return "\n".join(_line(line[:_LINE]) for line in text.splitlines()) + "\n"


def _line(line: str) -> str:
    place = _PLACE.match(line)
    if place is not None:
        return f'  File "{_installed(place[1])}", line {place[2] if _installed(place[1]) != CUT else CUT}'
    time = _TIME.match(line)
    head = time[0] if time is not None else ""
    known = vocabulary()
    kept = []
    for token in _TOKEN.findall(line[len(head) :]):
        if token.isspace() or token in _PLAIN or (_WORD.fullmatch(token) and token in known):
            kept.append(token)
        elif not kept or kept[-1] != CUT:
            kept.append(CUT)
    return head + "".join(kept).rstrip()


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    """Words of this program's messages, levels, and exceptions of Python's and ours."""
    found = {*_LEVELS, *_FRAME}
    found |= {
        name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
    }
    root = Path(fedsite.client.__file__).parent.parent
    for package in _PACKAGES:
        for path in (root / package).rglob("*.py"):
            found |= _said(path)
    return frozenset(found)


def _said(path: Path) -> set[str]:
    """Words of the messages in one source file, and the names of its exceptions."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return set()
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name.endswith("Error")}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if _tells(call.func):
            found |= {word for text in _texts(call) for word in _WORD.findall(text)}
    return found


def _tells(function: ast.expr) -> bool:
    """Whether a call makes a message: logging, or an exception."""
    if isinstance(function, ast.Attribute):
        return function.attr in _SAYS or function.attr.endswith("Error")
    return isinstance(function, ast.Name) and function.id.endswith("Error")


def _texts(call: ast.Call) -> Iterator[str]:
    for part in (*call.args, *(keyword.value for keyword in call.keywords)):
        for node in ast.walk(part):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@lru_cache(maxsize=256)
def _installed(name: str) -> str:
    """A source file by its place below what is installed; cut where it is not installed."""
    path = Path(name)
    roots = (
        Path(fedsite.protocol.__file__).parent.parent,
        *(Path(sysconfig.get_path(key)) for key in ("purelib", "stdlib")),
    )
    for root in roots:
        if path.suffix == ".py" and ".." not in path.parts and path.is_relative_to(root) and path.is_file():
            return path.relative_to(root).as_posix()
    return CUT
