"""Golden vectors: inputs that are nobody's data and what int8 answers to them, so that a device can check its runtime.

Server only to make (needs `onnx`); comparing needs arrays alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsite.models import runtime
from fedsite.protocol.errors import IntegrityError, RefusalCode

_STEPS = 2.0  # int8 products are exact; a rounding to the neighbouring step may fall otherwise on another processor
_FLOAT = 1e-4  # of the largest output, for a model whose output is not quantized


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """Shapes: `inputs` [n, time, feature], `outputs` [n, …], both float32; `tolerance` in units of the output."""

    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32]
    tolerance: float


def make(model: bytes, inputs: NDArray[np.float32]) -> Vectors:
    """Vectors of an int8 model.

    Args:
        model: int8 ONNX.
        inputs: normalised windows that are nobody's data (`calibration.synthetic_inputs`) [n, time, feature].

    Raises:
        IntegrityError: not a model, or its outputs are not finite.
    """
    outputs = runtime.Scorer(model).predict(inputs)
    if not np.isfinite(outputs).all():
        raise IntegrityError("the int8 model's golden outputs are not finite", allowed="finite outputs")
    return Vectors(inputs=inputs, outputs=outputs, tolerance=_tolerance(model, outputs))


def check(scorer: runtime.Scorer, vectors: Vectors) -> float:
    """The largest deviation of this machine's answers.

    Raises:
        IntegrityError: above the tolerance, or of another shape.
    """
    try:
        found = scorer.predict(vectors.inputs)
    except Exception as error:
        raise _failed(f"the model does not run ({type(error).__name__})", "the golden outputs") from error
    if found.shape != vectors.outputs.shape:
        raise _failed(f"outputs of shape {list(found.shape)}", f"{list(vectors.outputs.shape)}")
    worst = float(np.abs(found.astype(np.float64) - vectors.outputs).max(initial=0.0))
    if not worst <= vectors.tolerance:
        raise _failed(f"an output differs by {worst:.3g}", f"at most {vectors.tolerance:.3g}")
    return worst


def _tolerance(model: bytes, outputs: NDArray[np.float32]) -> float:
    from onnx import numpy_helper

    from fedsite.models import graph

    parsed = graph.decode(model)
    name = parsed.graph.output[0].name
    numbers = {item.name: item for item in parsed.graph.initializer}
    for node in parsed.graph.node:
        if name in node.output and node.op_type == "DequantizeLinear" and node.input[1] in numbers:
            return _STEPS * float(numpy_helper.to_array(numbers[node.input[1]]))
    return _FLOAT * float(np.abs(outputs).max(initial=0.0))


def _failed(found: str, allowed: str) -> IntegrityError:
    return IntegrityError(
        f"golden self-test: {found}",
        allowed=allowed,
        next_step="the model was not switched; fedsite model status shows the one in use",
        refusal=RefusalCode.SELF_TEST,
    )
