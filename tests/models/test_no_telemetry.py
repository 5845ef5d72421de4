"""No library that a site loads calls home: the runtime's own telemetry is off in every process that loads it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.connect_proxy import ConnectProxy

PROGRAM = """
import time
import fedsite.models
import onnxruntime
from onnx import TensorProto, helper
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnxruntime.InferenceSession(model.SerializeToString())
time.sleep(0.9)
"""


def test_the_runtime_calls_nobody(tmp_path: Path) -> None:
    with ConnectProxy({}) as gate:
        names = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"), gate.url)
        environment = {**names, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, timeout=120)
        time.sleep(0.1)
        assert gate.asked == []
