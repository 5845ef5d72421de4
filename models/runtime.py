"""Scoring on the device: onnxruntime on one thread, no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fedsite.models import onnx_header
from fedsite.protocol.errors import DataError, IntegrityError
from fedsite.protocol.release import MAX_MODEL

OPSETS = (13, 23)  # of ONNX itself, first and last
_BATCH = 1024  # windows


class Scorer:
    """One model, ready to score windows.

    Raises:
        IntegrityError: not a model, too large, in need of operators that are not ONNX's or of files beside it.
    """

    def __init__(self, model: bytes) -> None:
        self._session = session(model)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 3:
            raise IntegrityError(
                f"model with inputs {[(item.type, item.shape) for item in inputs]} and {len(outputs)} outputs",
                allowed="one float input [windows, time, feature] and one output",
            )
        self._input, self._output = inputs[0].name, outputs[0].name
        _, self.time, self.features = inputs[0].shape
        self._tail = tuple(outputs[0].shape[1:])

    def predict(self, x: NDArray[np.floating]) -> NDArray[np.float32]:
        """The model's output for normalised windows. x: [windows, time, feature]; returns [windows, …].

        Raises:
            DataError: windows of another shape.
        """
        if x.ndim != 3 or x.shape[1:] != (self.time, self.features):
            raise DataError(f"windows of shape {list(x.shape)}", allowed=f"[windows, {self.time}, {self.features}]")
        if not len(x):
            return np.zeros((0, *self._tail), np.float32)
        parts = [
            self._session.run(
                [self._output], {self._input: np.ascontiguousarray(x[start : start + _BATCH], np.float32)}
            )
            for start in range(0, len(x), _BATCH)
        ]
        return np.concatenate([part[0] for part in parts])


def session(model: bytes) -> Any:
    """An onnxruntime session on one thread that stays quiet; for graphs of any number of outputs.

    Raises:
        IntegrityError: see `Scorer`.
    """
    if len(model) > MAX_MODEL:
        raise IntegrityError(f"model of {len(model)} bytes", allowed=f"at most {MAX_MODEL} bytes")
    header = onnx_header.read(model)
    foreign = sorted(set(header.opsets) - {"", "ai.onnx"})
    if foreign:
        raise IntegrityError(f"model needs operators of {foreign[0]!r}", allowed="standard ONNX operators")
    version = max(header.opsets.values())
    if not OPSETS[0] <= version <= OPSETS[1]:
        raise IntegrityError(
            f"model of ONNX opset {version}",
            allowed=f"{OPSETS[0]} to {OPSETS[1]}",
            next_step="upgrade this site: pip install --upgrade 'fedsite[score]'",
        )
    if header.external:
        raise IntegrityError("model keeps numbers in another file", allowed="a model in one piece")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # A gateway's core is not ours to spin on between windows.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).partition("\n")[0][:200]
        raise IntegrityError(
            f"the runtime refuses the model ({type(error).__name__}: {reason})", allowed="a model onnxruntime can load"
        ) from None
