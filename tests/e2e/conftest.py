"""One federation of two enrolled sites for a whole test module."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.e2e import federation as module


@pytest.fixture(scope="session")
def federations() -> ModuleType:
    """The module with `Federation`, `free_port` and `end`."""
    return module


@pytest.fixture(scope="module")
def federation(federations: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A running server with the enrolled sites alpha and beta; no agent runs yet."""
    with federations.Federation(tmp_path_factory.mktemp("federation")) as running:
        for name in ("alpha", "beta"):
            running.join_site(name)
        yield running
