"""Commands that only read or decide start light: nothing that trains, reads tables or hears the server is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cli.test_site_commands import join_on_disk

HEAVY = ("torch", "flwr", "polars", "opacus", "onnxruntime", "onnx", "hydra", "scipy", "pandas")
# Each with its exit codes: some have nothing to tell at a site that has not run yet.
LIGHT = [
    ["--help"],
    ["status"],
    ["status", "--json"],
    ["privacy", "--json"],
    ["rounds", "list", "--json"],
    ["policy", "show", "--json"],
    ["policy", "init"],
    ["audit", "verify"],
    ["audit", "show"],
    ["pause", "2h"],
    ["resume"],
    ["model", "status"],
    ["join", "--help"],
    ["data", "check"],
    ["stauts"],
    ["doctor", "--help"],
    ["leave", "--help"],
    ["score", "--help"],
    ["up", "--help"],
    ["launch", "--help"],
    ["runs", "--help"],
    ["server", "up", "--help"],
    ["demo", "--help"],
]
PROBE = """
import contextlib, io, json, sys
from fedsite.client.cli import run
told = {}
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = run(arguments)
    heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    told[" ".join(arguments)] = [code, heavy, said.getvalue()]
print(json.dumps(told))
"""
AGENT = """
import json, sys
import fedsite.client.running, fedsite.client.agent, fedsite.client.assembly, fedsite.client.local.local_api
print(json.dumps([name for name in json.loads(sys.argv[1]) if name in sys.modules]))
"""


def _probe(home: Path, code: str, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEDSITE_")}
    environment["FEDSITE_HOME"] = str(home)
    line = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=environment, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_commands_that_read_or_decide_import_nothing_heavy(tmp_path: Path) -> None:
    join_on_disk(tmp_path)
    told = json.loads(_probe(tmp_path, PROBE, json.dumps(LIGHT), json.dumps(HEAVY)))
    for command, (code, heavy, said) in told.items():
        assert heavy == [], command
        assert code in (0, 2), (command, code, said)
        assert "Traceback" not in said, command


def test_an_agent_waits_without_what_its_worker_needs(tmp_path: Path) -> None:
    # flwr is there: it is how the server is heard.
    worker = [name for name in HEAVY if name != "flwr"]
    assert json.loads(_probe(tmp_path, AGENT, json.dumps(worker))) == []
