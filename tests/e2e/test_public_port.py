"""What the one public port lets in, against the real server: sites with their own keys, and nothing else."""

from __future__ import annotations

import base64
import ssl
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.proto.control_pb2 import StartRunRequest
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
from fedsite.server.link.admin_client import AdminClient
from fedsite.server.link.guard import FLEET_ROUTES

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
    with _http(federation, "gamma", "gamma") as kept, federation.link("gamma") as link:
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
    with federation.link("delta") as link, AdminClient.open(federation.state) as server:
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
