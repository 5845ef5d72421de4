"""A bundle full of code, started by whoever holds the server's secret: it runs at the server, and at no site."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from fedsite.server.link.admin_client import AdminClient
from tests.e2e import bundles

SERVER_APP = """
import json, os, pathlib, time
from flwr.app import Message
from flwr.serverapp import ServerApp
from fedsite.protocol.messages import Frame
from fedsite.protocol.records import from_record, to_record
from fedsite.server.link.flower_push import forgiving

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


def test_a_bundle_full_of_code_runs_at_no_site_and_large_frames_come_through(federations: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with federations.Federation(tmp_path / "f", environment={"MARK": str(mark)}) as running:
        for name in ("agent", "echo"):
            running.join_site(name)
        running.start_agent("agent")
        running.wait_online("agent")
        stopping = threading.Event()

        def echo() -> None:
            with running.link("echo") as link:
                while not stopping.is_set():
                    found = link.pull(wait_s=1.0)
                    if found is not None:
                        assert link.push(*found)

        thread = threading.Thread(target=echo)
        thread.start()
        try:
            running.wait_online("agent", "echo")
            assert bundles.start(running, server=SERVER_APP, client=CLIENT_APP)
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
