"""What a device or a command's start imports must load no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "names",
    [
        "fedsite.models.runtime, fedsite.models.metrics, fedsite.models.calibration, fedsite.models.parity",
        "fedsite.models.catalog, fedsite.models.vector, fedsite.models.golden, fedsite.models.export",
    ],
)
def test_no_torch_onnx_or_exporter(names):
    heavy = ("torch", "opacus", "onnx", "onnxscript", "polars")
    code = f"import sys, {names}\nprint([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_of_architectures_need_no_torch():
    code = "import sys\nfrom fedsite.models import catalog\ncatalog.names()\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
