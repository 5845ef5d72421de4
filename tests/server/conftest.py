"""Simulated sites, a run with them, and a link's grid to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.supercore.task_identity import TaskIdentity

from fedsite.server.link import transport
from tests.memory_grid import MemoryGrid
from tests.simulated_fleet import Play, SimulatedFleet


@pytest.fixture
def fleet() -> SimulatedFleet:
    """The sites."""
    return SimulatedFleet()


@pytest.fixture
def play(fleet: SimulatedFleet, tmp_path: Path) -> Play:
    """A run with them."""
    return Play(fleet=fleet, folder=tmp_path)


@pytest.fixture
def grid(fleet: SimulatedFleet) -> Iterator[MemoryGrid]:
    """A grid to them, in a process that Flower takes for a ServerApp's."""
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    yield MemoryGrid(fleet)
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before


@pytest.fixture
def roster(fleet: SimulatedFleet, grid: MemoryGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database of sites, as far as the link reads it."""

    class Row:
        def __init__(self, name: str) -> None:
            site = fleet[name]
            self.site_id, self.name = site.key.public.id, name
            self.node_id, self.identity = str(grid.numbers[name]), site.key.public.raw
            self.certified = site.certified
            self.revoked = "2026-01-01T00:00:00Z" if name == "west" else None
            self.carried = False

    monkeypatch.setattr(transport, "read_sites", lambda _path: [Row(site.name) for site in fleet.all])
