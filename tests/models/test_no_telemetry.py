"""No library that a site loads calls home: the runtime's own telemetry is off in every process that loads it."""

from __future__ import annotations

import subprocess
import sys


def test_the_setting_is_there_before_the_runtime() -> None:
    program = "import fedsite.models.onnx_limits, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
