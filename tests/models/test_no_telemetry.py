"""No library that a site loads calls home: the runtime's own telemetry is off in every process that loads it."""

from __future__ import annotations

import os
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import pytest

# Left alone, the runtime calls its makers within some seconds of its first sessions.
PROGRAM = """
from fedsite.models import catalog, export, runtime
module = catalog.build("mlp", {"hidden": [4]}, time=2, features=1, outputs=1, seed=0)
for _ in range(20):
    runtime.Scorer(export.to_onnx(module, 2, 1))
"""
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY")


class _Proxy(socketserver.StreamRequestHandler):
    """Writes down who is asked for, and hangs up."""

    def handle(self) -> None:
        self.server.asked.append(self.rfile.readline(4096))  # type: ignore[attr-defined]


def test_the_setting_is_there_before_the_runtime() -> None:
    program = "import fedsite.models.onnx_limits, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.slow
def test_the_runtime_calls_nobody(tmp_path: Path) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Proxy) as gate:
        gate.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=gate.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{gate.server_address[1]}"
        environment = {**os.environ, **dict.fromkeys(PROXIES, address), "HOME": str(tmp_path)}
        try:
            subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, timeout=300)
        finally:
            gate.shutdown()
        assert gate.asked == []  # type: ignore[attr-defined]
