"""Moments in documents: UTC, RFC 3339, whole seconds, one spelling ("2026-01-02T03:04:05Z")."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from fedsite.protocol.errors import DocumentError

_SHAPE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def now() -> datetime:
    """The clock of whoever is not given another one."""
    return datetime.now(UTC)


def text(moment: datetime) -> str:
    """RFC 3339, truncated to seconds.

    Raises:
        DocumentError: a moment without a time zone.
    """
    if moment.tzinfo is None:
        raise DocumentError(f"time {moment}", allowed="a time with its time zone")
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def read(value: str) -> datetime:
    """The moment that `text` wrote.

    Raises:
        DocumentError: another spelling, or no such day.
    """
    try:
        if _SHAPE.fullmatch(value):
            return datetime.fromisoformat(value)
    except ValueError:
        pass
    raise DocumentError(f"time {value!r:.80}", allowed="UTC as 2026-01-02T03:04:05Z")
