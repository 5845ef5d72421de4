"""One federation of two enrolled sites for a whole test module."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    """federation.py beside this file: test folders are no packages."""
    import sys

    name = "fedsite_test_federation"
    if name not in sys.modules:
        spec = spec_from_file_location(name, Path(__file__).with_name("federation.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def federations() -> ModuleType:
    """The module with `Federation`, `free_port` and `end`."""
    return _load()


@pytest.fixture(scope="module")
def federation(federations: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A running server with the enrolled sites alpha and beta; no agent runs yet."""
    with federations.Federation(tmp_path_factory.mktemp("federation")) as running:
        for name in ("alpha", "beta"):
            running.join_site(name)
        yield running
