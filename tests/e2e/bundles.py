"""Flower bundles of our own making behind the real server, started as whoever holds its secret can."""

from __future__ import annotations

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.proto.control_pb2 import StartRunRequest, StartRunResponse
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from tests.e2e.federation import Federation

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


def start(running: Federation, *, server: str, client: str = "app = None\n") -> int:
    """Start a run of a bundle with these two programs; returns Flower's id of it."""
    files = {
        "pyproject.toml": BUNDLE.encode(),
        "intruder/__init__.py": b"",
        "intruder/server.py": server.encode(),
        "intruder/client.py": client.encode(),
    }
    secret = (running.state / "admin.secret").read_text()
    answer = httpx.post(
        f"http://{running.loopback}/v1/control/start-run",
        content=StartRunRequest(fab=Fab(content=build_fab_from_files(files)[0])).SerializeToString(),
        headers={"content-type": PROTOBUF_MEDIA_TYPE, "authorization": f"Bearer {secret}"},
        trust_env=False,
        timeout=30,
    )
    return int(StartRunResponse.FromString(answer.content).run_id)
