"""The thin bundle, and runs in Flower's own state."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import tomli

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.keys import NodeKey
from fedsite.server import home as homes
from fedsite.server.link import flower_control, flower_link

RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def test_the_bundle_names_installed_code_and_carries_none() -> None:
    bundle = zipfile.ZipFile(io.BytesIO(flower_control.thin_bundle()))
    assert sorted(bundle.namelist()) == [".info/CONTENT", "README.md", "pyproject.toml"]
    app = tomli.loads(bundle.read("pyproject.toml").decode())["tool"]["flwr"]["app"]
    assert app["components"] == {
        "serverapp": "fedsite.server.flower_app:app",
        "clientapp": "fedsite.client.flower_app:app",
    }
    assert app["config"] == {"fedsite-run": "", "fedsite-epoch": 0}
    assert flower_control.thin_bundle() == flower_control.thin_bundle()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> flower_control.Nodes:
    """A real SuperLink's state, with nobody listening."""
    from fedsite.protocol import instants

    home = homes.ServerHome(tmp_path_factory.mktemp("home") / "server")
    homes.create(home, name="test", address="127.0.0.1:9443", now=instants.now())
    return flower_control.Nodes(flower_link.superlink_app(home).state.linkstate_factory)


def test_a_run_is_started_listed_and_stopped_once(nodes: flower_control.Nodes) -> None:
    first = flower_control.start_run(nodes.state, run_id=RUN, epoch=1)
    second = flower_control.start_run(nodes.state, run_id=RUN, epoch=2)
    listed = {run.flower_run_id: run for run in flower_control.list_runs(nodes.state)}
    assert [(listed[key].run_id, listed[key].epoch) for key in (first, second)] == [(RUN, 1), (RUN, 2)]
    assert listed[first].status == "pending"
    assert flower_control.stop_run(nodes.state, first)
    assert not flower_control.stop_run(nodes.state, first)
    assert {run.flower_run_id: run.status for run in flower_control.list_runs(nodes.state)}[first] == "finished"
    for unknown in ("1", "x", ""):
        with pytest.raises(ConfigError):
            flower_control.stop_run(nodes.state, unknown)


def test_a_node_is_registered_once_and_removed_for_good(nodes: flower_control.Nodes, tmp_path: Path) -> None:
    key = NodeKey.generate().public_pem
    node = nodes.register(key)
    assert nodes.register(key) == node
    assert node not in nodes.online()
    assert nodes.state.activate_node(int(node), 30)
    assert node in nodes.online()
    nodes.remove(node)
    nodes.remove(node)
    assert node not in nodes.online()
    assert nodes.state.get_node_id_by_public_key(key) is None
