"""When a task's data was last looked at, and what was wrong with it: codes only, kept here, for the screens.

Source of `data` in `fedsite status`; written by `fedsite data check` and `fedsite doctor`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from fedsite.client.health.checks import Contract
from fedsite.protocol import documents, instants, storage
from fedsite.protocol.errors import FedsiteError

FOLDER: Final = "contract"
SCHEMA: Final = "fedsite.last-check/1"
_SUFFIX: Final = ".last"
_LIMIT: Final = 64 << 10  # bytes
_CODES: Final = 32


def keep(directory: Path, task: str, codes: Iterable[str], now: datetime) -> None:
    """Write down a look; a place that cannot be written is no reason to fail."""
    value = {"schema": SCHEMA, "task": task, "checked": instants.text(now), "codes": sorted(set(codes))[:_CODES]}
    with contextlib.suppress(FedsiteError):
        storage.private_directory(directory / FOLDER)
        storage.write_atomic(_path(directory, task), documents.canonical(value))


def read(directory: Path, named: Sequence[str] = ()) -> list[Contract]:
    """Every look that is kept, and tasks in `named` that nobody ever looked at."""
    found: dict[str, Contract] = {}
    for path in sorted((directory / FOLDER).glob(f"*{_SUFFIX}")):
        with contextlib.suppress(FedsiteError, KeyError, TypeError):
            value = documents.document(storage.read(path, limit=_LIMIT), SCHEMA, limit=_LIMIT)
            codes = tuple(str(code)[:40] for code in value["codes"][:_CODES])
            task = str(value["task"])
            found[task] = Contract(task=task, checked=instants.read(str(value["checked"])), codes=codes)
    return [found.pop(task, Contract(task=task, checked=None)) for task in dict.fromkeys(named)] + list(found.values())


def _path(directory: Path, task: str) -> Path:
    return directory / FOLDER / f"{hashlib.sha256(task.encode()).hexdigest()[:32]}{_SUFFIX}"
