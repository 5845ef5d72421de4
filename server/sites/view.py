"""A site as people and scripts see it, and the labels it may carry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Any

from fedsite.protocol import instants
from fedsite.protocol.errors import ConfigError
from fedsite.server.sites.fleet import SUPERNODE_LABEL
from fedsite.server.sites.fleet_file import Site

SCHEMA = "fedsite.site-view/1"
MAX_LABELS = 32
_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,31}")
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}")


def site_view(site: Site, online: Set[str]) -> dict[str, Any]:
    """One site, with nothing secret in it."""
    return {
        "schema": SCHEMA,
        "name": site.name,
        "state": _state(site, online),
        "site_id": site.site_id,
        "node_id": site.node_id,
        "enrolled": site.enrolled,
        "certificate_expires": instants.text(site.expires),
        "revoked": site.revoked,
        "supernode": site.supernode,
        "carried": site.carried,
        "labels": dict(site.labels),
    }


def _state(site: Site, online: Set[str]) -> str:
    if site.revoked:
        return "revoked"
    if site.carried:
        return "carried"
    return "online" if site.node_id in online else "offline"


def parse_labels(words: list[str]) -> dict[str, str | None]:
    """`key=value` sets, `key=` removes.

    Raises:
        ConfigError: a word without "=", or a key or value with other characters.
    """
    changes: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(
                f"label {word!r}", allowed="key=value, or key= to remove", next_step="fedsite sites label NAME line=3"
            )
        changes[key] = value or None
    return check_labels(changes)


def check_labels(changes: object) -> dict[str, str | None]:
    """Check label changes that came from outside.

    Raises:
        ConfigError: not a mapping of short words.
    """
    if not isinstance(changes, Mapping) or len(changes) > MAX_LABELS:
        raise ConfigError("labels are not a small object", allowed=f"up to {MAX_LABELS} labels")
    for key, value in changes.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ConfigError(f"label key {key!r:.80}", allowed="lower-case letters, digits, '_', '.', '-', up to 32")
        if key == SUPERNODE_LABEL and value not in ("true", "false", None):
            raise ConfigError(f"supernode is {value!r:.80}", allowed="true or false")
        if value is not None and (not isinstance(value, str) or not _VALUE.fullmatch(value)):
            raise ConfigError(f"label value {value!r:.80}", allowed="letters, digits and _.:/- up to 64")
    return dict(changes)
