"""Launch settings in a test's hands: a Hydra composition for each choice of groups, keys laid over it at no cost."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import yaml

from fedsite.protocol import shape
from fedsite.server import settings
from fedsite.server.settings import LaunchSettings


def asked(*overrides: str) -> LaunchSettings:
    """As `settings.compose` reads them, without its check of words."""
    groups = tuple(item for item in overrides if item.partition("=")[0] in settings.GROUPS)
    value: dict[str, Any] = shape.plain(_composed(groups))
    for item in overrides:
        if item in groups:
            continue
        key, _, text = item.partition("=")
        *path, last = key.split(".")
        node = value
        for part in path:
            node = node[part]
        node[last] = yaml.safe_load(text)
    return shape.read(LaunchSettings, value)


@lru_cache
def _composed(groups: tuple[str, ...]) -> LaunchSettings:
    return settings.compose(groups)
