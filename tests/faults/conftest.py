"""Federations that are there to be killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.toy_federation import Toys


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toys]:
    """Three sites online, their workers warm."""
    with Toys(tmp_path_factory.mktemp("toys")) as running:
        for name in ("anna", "bert", "carl"):
            running.site(name)
        running.wait_online("anna", "bert", "carl")
        warm = running.launch("rounds.count=1", "rounds.minimum=3")
        assert running.watch(warm).finished()["outcome"] == "completed", running.log("server", "anna")
        yield running
