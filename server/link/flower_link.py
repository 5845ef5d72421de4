"""Flower's SuperLink behind the guard: one process, one application, a public and a loopback door.

`python -m fedsite.server.link.flower_link --state DIR` is a child of the launcher. It is the only writer of
`fedsite.db`, and this the only file that touches the private `flwr.superlink.main.create_app`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

from fedsite.protocol.errors import FedsiteError
from fedsite.server.home import ServerHome

_LOG = logging.getLogger(__name__)


def flower_environment(home: ServerHome) -> dict[str, str]:
    """What every process of Flower's is started with: no telemetry, no update check, no installing of dependencies."""
    return {
        "FLWR_HOME": str(home.flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }


def superlink_app(home: ServerHome) -> FastAPI:
    """Flower's application on SQLite, with node authentication, and runs in processes of their own."""
    from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
    from flwr.superlink.main import create_app

    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="127.0.0.1",
        port=0,
        insecure=True,
        certificates=None,
        superexec_auth_secret=home.superexec_secret.read_bytes(),
        authn_plugin=load_control_authn_plugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=str(home.superlink_database),
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    # Flower's own handler writes to the same log, and its DEBUG lines cost more than some of its handlers.
    logging.getLogger("flwr").setLevel(logging.WARNING)
    logging.getLogger("flwr").propagate = False
    return create_app(config, SuperLinkLifespan)


def run(home: ServerHome, host: str, port: int, loopback_port: int) -> None:
    """Serve until told to stop; prints one JSON line with both ports when ready.

    Raises:
        ConfigError: a port is taken.
        StorageError, TrustError: the state directory is incomplete or unreadable.
    """
    from fedsite.server.audit_log import appending, open_log
    from fedsite.server.link import flower_control
    from fedsite.server.link.admin import admin_app
    from fedsite.server.link.flower_dispatch import FlowerDispatch
    from fedsite.server.link.guard import Listener, Target
    from fedsite.server.link.guarded import Guard
    from fedsite.server.link.listeners import bind, serve, tls_context
    from fedsite.server.link.ping import Ping
    from fedsite.server.release.delivery import delivery_app
    from fedsite.server.sites.enrolment import Enrolment, enrolment_app
    from fedsite.server.sites.fleet import Fleet

    public_socket = bind(host, port)
    loopback_socket = bind("127.0.0.1", loopback_port)
    fleet = Fleet(home.database)
    flower = superlink_app(home)
    dispatch = FlowerDispatch(flower)
    nodes = flower_control.Nodes(flower.state.linkstate_factory)

    def retire(node_id: str) -> None:
        nodes.remove(node_id)
        dispatch.wake(int(node_id))  # a pull that is held for it ends now

    audit = appending(open_log(home))
    enrolment = Enrolment(
        home.load_keys(), fleet, register_node=nodes.register, retire_node=retire, clock=_now, audit=audit
    )
    targets: dict[Target, Any] = {
        Target.FLOWER: dispatch,
        Target.ENROLMENT: enrolment_app(enrolment),
        Target.RELEASES: delivery_app(home.releases),
        Target.ADMIN: admin_app(fleet, nodes, retire=retire, admit=enrolment.admit, clock=_now, audit=audit),
        Target.HEALTH: _health,
        Target.PING: Ping(),
    }
    secret = home.read_admin_secret()
    doors = {listener: Guard(listener, targets, fleet, secret=secret, clock=_now) for listener in Listener}

    def ready() -> None:
        ports = {"port": public_socket.getsockname()[1], "loopback": loopback_socket.getsockname()[1]}
        print(json.dumps(ports), flush=True)

    try:
        serve(
            public=doors[Listener.PUBLIC],
            public_socket=public_socket,
            context=tls_context(home.tls_certificate, home.tls_key, home.federation().ca_certificate),
            loopback=doors[Listener.LOOPBACK],
            loopback_socket=loopback_socket,
            ready=ready,
            stopping=dispatch.close,
        )
    finally:
        fleet.close()


def main() -> int:
    """Entry point of the child process; errors go to the launcher as one JSON line."""
    parser = argparse.ArgumentParser(prog="fedsite.server.link.flower_link")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--loopback-port", type=int, default=0)
    parser.add_argument("--parent-pid", type=int, default=None)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    home = ServerHome(options.state)
    os.environ.update(flower_environment(home))
    try:
        if options.parent_pid is not None:
            from fedsite.server.children import die_with_parent

            die_with_parent(options.parent_pid)
        run(home, options.host, options.port, options.loopback_port)
    except FedsiteError as error:
        fields = {"found": error.found, "allowed": error.allowed, "next_step": error.next_step}
        print(json.dumps({"error": fields, "exit_code": int(error.exit_code)}), flush=True)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return 0
    return 0


async def _health(_scope: Any, _receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": int(HTTPStatus.OK), "headers": headers})
    await send({"type": "http.response.body", "body": b'{"status":"ok"}'})


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    sys.exit(main())
