"""What the one public port lets in, against the real server: sites with their own keys, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.cli.build import build_fab_from_files
from flwr.proto.control_pb2 import StartRunRequest, StartRunResponse
from flwr.proto.fab_pb2 import Fab
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from fedsite.client.identity.enrolment import open_connection
from fedsite.client.link.flower_client import Connection, site_tls
from fedsite.client.link.flower_fleet import FleetLink
from fedsite.protocol import instants
from fedsite.protocol.errors import TrustError, UnreachableError
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import NodeKey
from fedsite.server import home as homes
from fedsite.server.admin_client import AdminClient
from fedsite.server.guard import FLEET_ROUTES
from tests.e2e import leftovers

PROTOBUF = {"content-type": PROTOBUF_MEDIA_TYPE}
CLOSED = [
    "/v1/control/start-run",
    "/v1/control/list-runs",
    "/v1/runtime/acquire-task",
    "/admin/sites",
    "/health",
    "/docs",
]


def _federation(running: Any) -> Federation:
    return Federation.parse((running.state / "federation.json").read_bytes())


def _http(running: Any, site: str | None, node_key: str | None = None) -> httpx.Client:
    """A client with the certificate of `site`, that names the node key of another one in Flower's header."""
    state = running.site_state(site) if site else None
    files = (str(state / "tls.pem"),) if state else ()
    headers = dict(PROTOBUF)
    if node_key:
        key = NodeKey.load(running.site_state(node_key) / "node.key").public_pem
        headers["flwr-public-key"] = base64.b64encode(key).decode()
    federation = _federation(running)
    return httpx.Client(
        verify=site_tls(federation, *files),
        base_url=f"https://{federation.address}",
        headers=headers,
        trust_env=False,
        timeout=30,
    )


@contextlib.contextmanager
def _link(running: Any, site: str) -> Iterator[FleetLink]:
    with FleetLink(open_connection(running.site_state(site))) as link:
        link.activate()
        yield link


def test_control_and_runtime_calls_are_refused_to_everybody(federation: Any) -> None:
    body = StartRunRequest(fab=Fab(content=b"code")).SerializeToString()
    with _http(federation, None) as stranger, _http(federation, "alpha", "alpha") as site:
        for path in CLOSED:
            assert stranger.post(path, content=body).status_code == 401
            assert site.post(path, content=body).status_code == 404
            assert site.get(path).status_code == 404


def test_without_a_certificate_everything_but_enrolment_is_refused(federation: Any) -> None:
    with _http(federation, None, "alpha") as stranger:
        for path in sorted(FLEET_ROUTES):
            assert stranger.post(path).status_code == 401
        assert stranger.get("/releases/1/manifest.json").status_code == 401
        assert stranger.get("/anything").status_code == 401
        assert stranger.get("/enrol").status_code == 200
        assert stranger.post("/enrol", content=b"{}").status_code in (400, 403)
        assert stranger.post("/enrol", content=b"x" * (1 << 20)).status_code == 413
        assert [stranger.post(path).status_code for path in ("/renew", "/leave")] == [401, 401]


def test_another_sites_certificate_is_refused(federation: Any) -> None:
    with _http(federation, "alpha", "beta") as mixed:
        for path in sorted(FLEET_ROUTES):
            assert mixed.post(path).status_code == 403
    # The whole link, with beta's signing key and node id, over a connection with alpha's certificate.
    beta = open_connection(federation.site_state("beta"))
    alpha = federation.site_state("alpha")
    tls = site_tls(_federation(federation), str(alpha / "tls.pem"))
    link = FleetLink(Connection(_federation(federation), tls=tls, node_key=beta.node_key, node_id=beta.node_id))
    with pytest.raises(TrustError):
        link.activate()
    link.close()


def test_a_certificate_of_another_authority_does_not_pass_the_handshake(federation: Any, tmp_path: Path) -> None:
    other = homes.ServerHome(tmp_path / "server")
    homes.create(other, name="other", address="127.0.0.1:9443", now=instants.now())
    # The foreign authority's own server certificate stands in for any certificate it could issue.
    tls = site_tls(_federation(federation), str(other.tls_certificate), str(other.tls_key))
    alpha = open_connection(federation.site_state("alpha"))
    link = FleetLink(Connection(_federation(federation), tls=tls, node_key=alpha.node_key, node_id=alpha.node_id))
    # The server hangs up during the handshake; whether its reason arrives is up to the network.
    with pytest.raises((TrustError, UnreachableError)):
        link.activate()
    link.close()


def test_a_server_of_another_authority_is_not_trusted(federation: Any, tmp_path: Path) -> None:
    other = homes.create(
        homes.ServerHome(tmp_path / "server"), name="other", address=f"127.0.0.1:{federation.port}", now=instants.now()
    )
    alpha = open_connection(federation.site_state("alpha"))
    link = FleetLink(Connection(other, tls=site_tls(other), node_key=alpha.node_key, node_id=alpha.node_id))
    with pytest.raises(TrustError, match="authority"):
        link.activate()
    link.close()


def test_tls_below_1_3_is_refused(federation: Any) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    with pytest.raises(httpx.ConnectError), httpx.Client(verify=old, trust_env=False) as client:
        client.get(f"https://127.0.0.1:{federation.port}/enrol")


def test_a_revoked_site_is_refused_on_a_connection_that_stays_open(federation: Any) -> None:
    federation.join_site("gamma")
    with _http(federation, "gamma", "gamma") as kept, _link(federation, "gamma") as link:
        assert link.pull(wait_s=0) is None
        before = kept.get("/releases/1/manifest.json")
        assert before.status_code == 404
        assert federation.cli("sites", "revoke", "gamma", "--json").value["state"] == "revoked"
        after = kept.get("/releases/1/manifest.json")
        assert after.status_code == 403
        peers = [answer.extensions["network_stream"].get_extra_info("client_addr") for answer in (before, after)]
        assert peers[0] == peers[1]
        with pytest.raises(TrustError, match="revoked"):
            link.pull(wait_s=0)
    listed = federation.cli("sites", "list", "--json").value["sites"]
    assert [site["state"] for site in listed if site["name"] == "gamma"] == ["revoked"]


def test_a_held_pull_ends_when_its_site_is_revoked(federation: Any) -> None:
    federation.join_site("delta")
    with _link(federation, "delta") as link, AdminClient.open(federation.state) as server:
        timer = threading.Timer(0.3, lambda: server.revoke("delta"))
        timer.start()
        with pytest.raises(TrustError):
            link.pull(wait_s=20.0)
        timer.join()


def test_a_site_may_only_answer(federation: Any) -> None:
    """Flower's push takes a message without `reply_to` for an instruction: to another site, or to the server itself."""
    alpha = open_connection(federation.site_state("alpha"))
    message = ProtoMessage(
        metadata=Metadata(
            run_id=1, message_id="m", src_node_id=alpha.node_id, dst_node_id=1, ttl=60, message_type="query"
        )
    )
    request = PushMessagesRequest(node=Node(node_id=alpha.node_id), messages_list=[message])
    with pytest.raises(httpx.HTTPStatusError) as instructing:
        alpha.fleet.PushMessages(request)
    assert instructing.value.response.status_code == 403
    message.metadata.reply_to_message_id, message.metadata.src_node_id = "x", alpha.node_id + 1
    with pytest.raises(httpx.HTTPStatusError) as pretending:
        alpha.fleet.PushMessages(PushMessagesRequest(node=Node(node_id=alpha.node_id), messages_list=[message]))
    assert pretending.value.response.status_code == 403
    with _http(federation, "alpha", "alpha") as site:
        body, other = request.SerializeToString(), {"content-type": f"{PROTOBUF_MEDIA_TYPE}; charset=utf-8"}
        assert site.post("/v1/fleet/push-messages", content=body, headers=other).status_code == 415
    alpha.close()


def test_loopback_asks_for_the_secrets(federation: Any) -> None:
    with httpx.Client(base_url=f"http://{federation.loopback}", trust_env=False, headers=PROTOBUF) as local:
        assert local.get("/health").json() == {"status": "ok"}
        assert local.get("/admin/sites").status_code == 401
        assert local.post("/v1/control/list-runs").status_code == 401
        assert local.get("/admin/sites", headers={"authorization": "Bearer wrong"}).status_code == 401
        asked = local.post("/v1/runtime/acquire-task", content=AcquireTaskRequest().SerializeToString())
        assert asked.status_code in (401, 403)
        assert local.post("/v1/runtime/pull-messages", headers={"flwr-task-token": "x"}).status_code in (401, 403)


SERVER_APP = """
import json, os, pathlib, time
from flwr.app import Message
from flwr.serverapp import ServerApp
from fedsite.protocol.messages import Frame
from fedsite.protocol.records import from_record, to_record
from fedsite.server.flower_push import forgiving

pathlib.Path(os.environ["MARK"] + ".server").write_text("ran")
app = ServerApp()

@app.main()
def main(grid, context):
    grid = forgiving(grid)  # a site may confirm before its last object is up
    small = Frame(header=b"{}", signature=bytes(64), blobs={"values": b"small"})
    large = Frame(header=b"{}", signature=bytes(64), blobs={"model": os.urandom(30 << 20)})
    found = {}
    for name, frame in (("small", small), ("large", large)):
        sent = {m: n for n in grid.get_node_ids()
                for m in grid.push_messages([Message(to_record(frame), n, "query", ttl=60)])}
        until = time.monotonic() + 60
        # A site that does not understand need not answer: nobody waits any more once one has echoed.
        while not any(found.get(f"{name} {node}") for node in sent.values()) and time.monotonic() < until:
            for reply in grid.pull_messages(list(sent)):
                node = sent[reply.metadata.reply_to_message_id]
                got = None if reply.has_error() else from_record(reply.content)
                found[f"{name} {node}"] = got is not None and got.blobs == frame.blobs
            time.sleep(0.05)
    path = pathlib.Path(os.environ["MARK"] + ".tmp")
    path.write_text(json.dumps(found))
    path.rename(os.environ["MARK"])
"""
CLIENT_APP = """
import os, pathlib
pathlib.Path(os.environ["MARK"] + ".client").write_text("ran")
from flwr.clientapp import ClientApp
app = ClientApp()
@app.query()
def query(message, context):
    pathlib.Path(os.environ["MARK"] + ".client").write_text("ran")
    return message
"""
BUNDLE = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "intruder"
version = "0.1.0"
description = "code"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "somebody"
[tool.flwr.app.components]
serverapp = "intruder.server:app"
clientapp = "intruder.client:app"
"""


def test_a_bundle_full_of_code_runs_at_no_site_and_large_frames_come_through(federations: Any, tmp_path: Path) -> None:
    files = {
        "pyproject.toml": BUNDLE.encode(),
        "intruder/__init__.py": b"",
        "intruder/server.py": SERVER_APP.encode(),
        "intruder/client.py": CLIENT_APP.encode(),
    }
    mark = tmp_path / "mark"
    with federations.Federation(tmp_path / "f", environment={"MARK": str(mark)}) as running:
        for name in ("agent", "echo"):
            running.join_site(name)
        running.start_agent("agent")
        running.wait_online("agent")
        stopping = threading.Event()

        def echo() -> None:
            with _link(running, "echo") as link:
                while not stopping.is_set():
                    found = link.pull(wait_s=1.0)
                    if found is not None:
                        assert link.push(*found)

        thread = threading.Thread(target=echo)
        thread.start()
        try:
            running.wait_online("agent", "echo")
            secret = (running.state / "admin.secret").read_text()
            answer = httpx.post(
                f"http://{running.loopback}/v1/control/start-run",
                content=StartRunRequest(fab=Fab(content=build_fab_from_files(files)[0])).SerializeToString(),
                headers={**PROTOBUF, "authorization": f"Bearer {secret}"},
                trust_env=False,
                timeout=30,
            )
            assert StartRunResponse.FromString(answer.content).run_id
            until = time.monotonic() + 180
            while not (mark.exists() and "instruction refused" in running.log("agent")) and time.monotonic() < until:
                time.sleep(0.1)
            assert mark.exists(), running.log("server", "agent")
            assert "instruction refused" in running.log("agent")
        finally:
            stopping.set()
            thread.join()
        with AdminClient.open(running.state) as server:
            nodes = {site["name"]: site["node_id"] for site in server.sites()}
        found = json.loads(mark.read_text())
        assert found[f"small {nodes['echo']}"]
        assert found[f"large {nodes['echo']}"]
        assert running.agents["agent"].poll() is None, running.log("agent")
    assert Path(f"{mark}.server").exists()
    assert not Path(f"{mark}.client").exists()


def test_a_killed_link_comes_back_where_it_was_and_stopping_leaves_nobody_behind(
    federations: Any, tmp_path: Path
) -> None:
    with federations.Federation(tmp_path) as running:
        running.join_site("alpha")
        with _link(running, "alpha") as link:
            os.kill(running.info["link_pid"], signal.SIGKILL)
            until = time.monotonic() + 120
            while time.monotonic() < until:
                with contextlib.suppress(UnreachableError):
                    assert link.pull(wait_s=0) is None
                    break
                time.sleep(0.1)
            else:
                raise AssertionError(running.log("server"))
        # It serves before the launcher has written down who it is.
        after = homes.read_running(homes.ServerHome(running.state))
        while after["link_pid"] == running.info["link_pid"]:
            assert time.monotonic() < until, running.log("server")
            time.sleep(0.02)
            after = homes.read_running(homes.ServerHome(running.state))
        assert (after["loopback"], after["port"]) == (running.info["loopback"], running.info["port"])
        # A launcher that is killed takes its children with it, and the next one starts over what it left.
        _wait_gone(running, lambda: os.kill(after["pid"], signal.SIGKILL))
        assert (running.state / "server.json").exists()
        running.server.wait()
        running.start()
        _wait_gone(running, lambda: running.server.send_signal(signal.SIGINT))
        assert running.server.wait() == 0
    assert not (running.state / "server.json").exists()


def _wait_gone(running: Any, act: Callable[[], object]) -> None:
    """Do something that ends the server, and wait until none of its processes is left."""
    now = homes.read_running(homes.ServerHome(running.state))
    act()
    until = time.monotonic() + 60
    left = [now[name] for name in ("pid", "link_pid", "superexec_pid")]
    while left and time.monotonic() < until:
        left = [pid for pid in left if leftovers.alive(pid)]
        time.sleep(0.05)
    assert not left, running.log("server")
