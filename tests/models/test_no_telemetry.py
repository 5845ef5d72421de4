"""No library that a site loads calls home: the runtime's own telemetry is off in every process that loads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.connect_proxy import ConnectProxy

# Without the setting, the runtime calls its makers some seconds after its first session.
PROGRAM = """
from fedsite.models import catalog, export, runtime
module = catalog.build("mlp", {"hidden": [4]}, time=2, features=1, outputs=1, seed=0)
for _ in range(20):
    runtime.Scorer(export.to_onnx(module, 2, 1))
"""


def test_the_setting_is_there_before_the_runtime() -> None:
    program = "import fedsite.models.onnx_limits, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.slow
def test_the_runtime_calls_nobody(tmp_path: Path) -> None:
    with ConnectProxy({}) as gate:
        names = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"), gate.url)
        environment = {**names, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, timeout=300)
        assert gate.asked == []
