"""A release whose model is one matrix, signed by a centre of the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedsite.protocol import release
from fedsite.telemetry.task import load_task

onnx = pytest.importorskip("onnx", reason="pip install 'fedsite[server]'")


def linear(weight: np.ndarray) -> bytes:
    """x [n, 1, feature] -> x @ weight [n, class], as an ONNX file."""
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["x", "axes"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["y"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, weight.shape[0]])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", weight.shape[1]])],
        [
            onnx.numpy_helper.from_array(weight.astype(np.float32), "weight"),
            onnx.numpy_helper.from_array(np.array([1]), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def signed(centre: Any, model: bytes, weight: np.ndarray, version: str = "1.0", **changes: Any) -> bytes:
    features = len(weight)
    inputs = np.arange(2 * features, dtype=np.float32).reshape(2, 1, features) / 10
    golden = release.Golden(
        inputs=release.Tensor.pack(inputs),
        outputs=release.Tensor.pack((inputs[:, 0] @ weight).astype(np.float32)),
        tolerance=1e-4,
    )
    values: dict[str, Any] = {
        "version": version,
        "federation": centre.federation.id,
        "run_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "plan_hash": "0" * 64,
        "task": load_task("pump").document,
        "normalisation": release.Normalisation(mean=(0.0,) * features, scale=(1.0,) * features),
        "fp32_bytes": 1000,
        "parity": release.Parity(metric="accuracy", fp32=0.9, int8=0.9),
        "golden": golden,
        "created": "2026-03-01T12:00:00Z",
    }
    return release.sign(release.make(model, **(values | changes)), centre.key)
