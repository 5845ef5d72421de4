"""fp32 graph to int8: QDQ, per-channel weights, activation ranges given from outside. No data is touched here.

Weights take 7 of their 8 bits. On x86 without VNNI the pairwise int8 product saturates at 16 bits: with full-range
weights an older gateway would compute another answer than a newer one; with 7 bits no product can saturate anywhere.
Source: onnxruntime, "Quantize ONNX models", section "When and why do I need to try U8U8?".
Server only: needs `onnx` and `onnxruntime`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from fedsite.models import calibration, graph, saturation
from fedsite.protocol.errors import IntegrityError

_PRODUCTS = ("Conv", "Gemm", "MatMul")
# What carries int8 from one product to the next without leaving it.
_CARRIERS = (
    "Add",
    "AveragePool",
    "Clip",
    "Flatten",
    "GlobalAveragePool",
    "LeakyRelu",
    "MaxPool",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
_NARROWEST = 1e-4  # a range never seen moving still needs a scale above zero


def quantize(
    data: bytes,
    ranges: calibration.Ranges | None = None,
    *,
    inputs: NDArray[np.floating] | None = None,
    noisy: bool = False,
) -> bytes:
    """The int8 model, same input and output as `data`, any batch size.

    Args:
        data: fp32 graph of `export.to_onnx`.
        ranges: from the sites' counts (`calibration.ranges`); None, or a tensor left out: estimated from `inputs`.
        inputs: `calibration.synthetic_inputs` in the task's normalised schema range [windows, time, feature]; None:
            unit-scale inputs. Ranges from synthetic inputs cost accuracy (docs/models.md).
        noisy: the counts carried noise, which hides the rare large values: ranges are widened toward the estimate.

    Raises:
        IntegrityError: `data` is not ONNX, or a range is not finite.
    """
    tapped, names = calibration.with_taps(data)
    known = dict(ranges or {})
    for name, (low, high) in known.items():
        if not (np.isfinite([low, high]).all() and low <= high):
            raise IntegrityError(f"range of tensor {name} is {low} to {high}", allowed="finite, low to high")
    if noisy or any(name not in known for name in names):
        guess = calibration.estimate(tapped, names, _inputs(data) if inputs is None else inputs)
        known = guess | (calibration.widened(known, guess) if noisy else known)
    model = graph.decode(graph.prepared(data))
    known = saturation.within(known, saturation.bounds(model))
    for scan in graph.scans(model):
        inner = graph.body(scan)
        inner.CopyFrom(insert_products(graph.as_model(inner, model), known).graph)
    return graph.encode(graph.strip(insert(model, known)))


def insert(model: Any, ranges: calibration.Ranges) -> Any:
    """A copy of `model` with QuantizeLinear and DequantizeLinear around products and carriers of its main graph."""
    return _insert(model, ranges, (*_PRODUCTS, *_CARRIERS))


def insert_products(model: Any, ranges: calibration.Ranges) -> Any:
    """As `insert`, for a recurrence's step: only products. A state rounded to 8 bits at every step would drift."""
    return _insert(model, ranges, _PRODUCTS)


def _insert(model: Any, ranges: calibration.Ranges, operations: tuple[str, ...]) -> Any:
    copy = onnx.shape_inference.infer_shapes(model)
    # The quantizer drops a Relu in favour of a range that ends at zero: noise must not put that end elsewhere.
    rectified = {node.output[0] for node in copy.graph.node if node.op_type == "Relu"}
    spans = {}
    for name in {name for node in copy.graph.node for name in (*node.input, *node.output)}:
        # It wants a range for every tensor, also for those it then merges into the next one.
        low, high = ranges.get(name, (-1.0, 1.0))
        spans[name] = (np.float32(0.0 if name in rectified else min(low, 0.0)), np.float32(max(high, 0.0)))
    with _quiet():
        quantizer = QDQQuantizer(
            copy,
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, spans),
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=list(operations),
            extra_options={"MinimumRealRange": _NARROWEST},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    return quantizer.model.model


def _inputs(data: bytes) -> NDArray[np.float32]:
    shape = [item.dim_value for item in graph.decode(data).graph.input[0].type.tensor_type.shape.dim]
    wide = np.full(shape[2], 4.0)
    return calibration.synthetic_inputs(-wide, wide, shape[1])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
