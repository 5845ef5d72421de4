"""What a command prints: values on stdout, talk on stderr, every error as found, allowed, next, with its exit code."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import sys
import textwrap
import time
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedsite.protocol.errors import ExitCode

ERROR_SCHEMA = "fedsite.error/1"
WIDTH = 80  # columns that every screen fits into

# Lower layers may not import the error tree; their exceptions carry the same three fields, known by their package.
_EXIT_BY_PACKAGE = {"fedsite.telemetry": ExitCode.DATA, "fedsite.privacy": ExitCode.BUDGET}
# What a terminal would obey, or show in another order than it stands: names and values come from files and other hosts.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_STORAGE_ERRNO = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EFBIG}


def emit(value: Any, as_json: bool) -> None:
    """Print one value on stdout: as one line of JSON, or for people.

    For people a mapping becomes aligned `key  value` lines (its `schema` is left out), a list of mappings a table, and
    anything else its text. On a terminal a value that is too long for it goes on below where it began.
    """
    if as_json:
        print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)
        return
    for line in _lines(value):
        # What a value of another host's has for an end of line would look like a line of ours.
        print(_printable(line if isinstance(value, str) else line.replace("\n", "\N{REPLACEMENT CHARACTER}")))
    sys.stdout.flush()


def epsilon(value: float) -> str:
    """An ε for people, rounded up: a printed claim must hold."""
    return f"{math.ceil(value * 1000 - 1e-9) / 1000:g}"


def epsilon_left(value: float) -> str:
    """What is left of an ε, for people, rounded down: never more than there is."""
    return f"{math.floor(value * 1000 + 1e-9) / 1000:g}"


def say(text: str) -> None:
    """Print one line of talk on stderr; on a terminal that is too narrow for it, several."""
    lines = fold(text, width=columns()) if sys.stderr.isatty() and not text.startswith("{") else [text]
    for line in lines:
        print(_printable(line), file=sys.stderr, flush=True)


def progress(text: str) -> None:
    """On a terminal, show on stderr what is under way, in the place of what was; empty: nothing any more."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{_printable(text)[: columns() - 1]}", end="", file=sys.stderr, flush=True)


def columns() -> int:
    """Of the terminal."""
    return max(40, shutil.get_terminal_size((WIDTH, 24)).columns)


def fold(text: str, *, first: str = "", then: str = "  ", width: int = WIDTH) -> list[str]:
    """A text on lines of `width` columns; words stay whole, so that what is longer than a line can be copied.

    Args:
        text: of words.
        first: before the first line, with all its spaces.
        then: before each further one.
        width: columns.
    """
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [first]


def exit_code(error: BaseException) -> int:
    """The documented exit code of an exception."""
    if isinstance(error, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    code = getattr(error, "exit_code", None)
    if isinstance(code, int) and hasattr(error, "found"):
        return int(code)
    if hasattr(error, "found"):
        for kind in type(error).__mro__:
            for package, known in _EXIT_BY_PACKAGE.items():
                if kind.__module__.startswith(package):
                    return int(known)
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRNO:
        return int(ExitCode.STORAGE)
    return int(ExitCode.INTERNAL)


def fail(error: BaseException, as_json: bool | None = None) -> int:
    """Print an error on stderr and return the exit code to end with.

    An exception without `found` is a defect of ours: one line, and the traceback in a private log file that is named.

    Args:
        error: what was raised.
        as_json: one JSON line (`fedsite.error/1`) instead of text; None asks the command line.
    """
    as_json = "--json" in sys.argv if as_json is None else as_json
    code = exit_code(error)
    found, allowed, next_step = _fields(error)
    if as_json:
        value = {
            "schema": ERROR_SCHEMA,
            "error": type(error).__name__,
            "found": found,
            "allowed": allowed,
            "next": next_step,
            "exit_code": code,
        }
        say(json.dumps(value, ensure_ascii=False))
        return code
    if code == ExitCode.INTERRUPTED:
        say("interrupted")
        return code
    say(f"error: {found}")
    if allowed:
        say(f"allowed: {allowed}")
    if next_step:
        say(f"next: {next_step}")
    return code


def _fields(error: BaseException) -> tuple[str, str, str]:
    """Found, allowed, next step of any exception."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "", ""
    if hasattr(error, "found"):
        return str(error.found), str(getattr(error, "allowed", "")), str(getattr(error, "next_step", ""))
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRNO:
        where = error.filename or "the state directory"
        return (
            f"{where}: {error.strerror}",
            "a writable disk with space left",
            "df -h; or set FEDSITE_HOME to another directory",
        )
    log = _write_log(error)
    where = f"the traceback is in {log}" if log else "the traceback could not be written"
    return f"{type(error).__name__}: a defect of fedsite, not of your input; {where}", "", "report it with that file"


def _write_log(error: BaseException) -> Path | None:
    """Write the traceback to a file only its owner can read; None where there is no place for it."""
    text = "".join(traceback.format_exception(error))
    with contextlib.suppress(Exception):
        from fedsite.protocol.storage import private_directory, state_home

        folder = state_home() / "logs"
        private_directory(folder)
        path = folder / f"error-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.log"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        return path
    return None


def _lines(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        shown = [(str(key), item) for key, item in value.items() if key != "schema"]
        width = max((len(key) for key, _ in shown), default=0)
        for key, item in shown:
            if isinstance(item, list) and item and all(isinstance(row, Mapping) for row in item):
                yield f"{key}:"
                yield from ("  " + line for line in _table(item))
            elif isinstance(item, Mapping):
                yield f"{key}:"
                yield from ("  " + line for line in _lines(item))
            else:
                yield from _pair(f"{key:<{width}}  ", _cell(item, key))
    elif isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        yield from _table(value)
    elif isinstance(value, list):
        yield from (_cell(item) for item in value)
    else:
        yield _cell(value)


def _pair(name: str, text: str) -> list[str]:
    """A key and its value; for programs that read the screen on one line, whatever its length."""
    if not sys.stdout.isatty() or len(name) + len(text) + 2 <= columns():
        return [name + text]
    return fold(text, first=name, then=" " * len(name), width=columns() - 2)  # it may stand indented


def _table(rows: list[Mapping[str, Any]]) -> Iterable[str]:
    """Columns in the order in which they first appear, aligned, with a header line."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name), str(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[index]) for line in cells)) for index, name in enumerate(names)]
    for line in [names, *cells]:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _cell(value: Any, name: str = "") -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if name == "left":
            return epsilon_left(value)
        return epsilon(value) if "epsilon" in name else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value) or "-"
    return str(value)
