"""A site behind an HTTP proxy joins and takes part as any other; only the proxy knows where the server is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.connect_proxy import ConnectProxy
from tests.e2e.federation import free_port
from tests.e2e.toy_federation import Toys

HOST = "fedsite.test"  # has no address: whoever looks it up here fails


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[tuple[Toys, ConnectProxy]]:
    toys = Toys(tmp_path)
    toys.port = free_port()
    with ConnectProxy({f"{HOST}:{toys.port}": toys.port}, password="site:open sesame") as proxy:
        url = proxy.url.replace("//", "//site:open%20sesame@")
        toys.environment = {"HTTPS_PROXY": url, "NO_PROXY": "localhost,example.org"}
        done = toys.cli("server", "init", "--name", "test", "--address", f"{HOST}:{toys.port}")
        assert done.code == 0, done.stderr
        with toys:
            yield toys, proxy


@pytest.mark.slow
def test_a_site_joins_and_takes_part_through_a_proxy(gate: tuple[Toys, ConnectProxy]) -> None:
    toys, proxy = gate
    toys.site("anna")
    toys.wait_online("anna")
    run = toys.launch("protection=sealed", "rounds.count=1", "rounds.minimum=1")
    assert toys.watch(run).finished()["outcome"] == "completed", toys.log("server", "anna")
    assert set(proxy.asked) == {f"CONNECT {HOST}:{toys.port} HTTP/1.1"}
    assert "sesame" not in toys.log("anna", "server")

    toys.environment = {"HTTPS_PROXY": proxy.url}  # without its password
    refused = toys.cli("join", "-", home=toys.site_home("bert"), stdin=toys.token() + "\n")
    assert refused.code == 5
    assert f"through the proxy 127.0.0.1:{proxy.port}: 407" in refused.stderr
    toys.environment = {"HTTPS_PROXY": "socks5://gate:1080"}
    wrong = toys.cli("join", "-", home=toys.site_home("bert"), stdin=toys.token() + "\n")
    assert wrong.code == 2
    assert "HTTPS_PROXY is no proxy this program can use" in wrong.stderr
