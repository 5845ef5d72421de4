"""Scoring on the device: onnxruntime on one thread, no torch; only for models that `onnx_limits` has let through."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fedsite.models import onnx_limits
from fedsite.protocol.errors import DataError, IntegrityError

_BATCH = 1024  # windows


class Session:
    """A model of one input and any number of outputs, checked before the runtime sees it.

    Raises:
        IntegrityError: not a model, too large, of operators that our export does not write, too expensive to run.
    """

    def __init__(self, model: bytes) -> None:
        self._model = onnx_limits.check(model)
        self._session = _load(model)
        self._admitted: set[int] = set()
        (self.input,) = self._session.get_inputs()
        self.outputs = self._session.get_outputs()
        self.names = [item.name for item in self.outputs]

    def batch(self, most: int) -> int:
        """How many windows to run at once: `most`, or a half, a quarter, … of it where that takes too much."""
        while most > 1:
            try:
                self._admit(most)
            except IntegrityError:
                most //= 2
            else:
                break
        return most

    def run(self, outputs: list[str], x: NDArray[np.float32]) -> list[NDArray[np.generic]]:
        """The named outputs for windows [windows, …].

        Raises:
            IntegrityError: so many windows at once take too much. Whatever the runtime raises.
        """
        self._admit(len(x))
        found: list[NDArray[np.generic]] = self._session.run(outputs, {self.input.name: np.ascontiguousarray(x)})
        return found

    def _admit(self, windows: int) -> None:
        # For each number anew: a shape may depend on it in other ways than growing with it.
        if windows not in self._admitted:
            onnx_limits.cost(self._model, windows)
            self._admitted.add(windows)


class Scorer:
    """One model, ready to score windows.

    Raises:
        IntegrityError: see `Session`; or not one output for windows of time and features.
    """

    def __init__(self, model: bytes) -> None:
        self._session = Session(model)
        given, outputs = self._session.input, self._session.outputs
        if len(outputs) != 1 or len(given.shape) != 3:
            raise IntegrityError(
                f"model with input {given.type} {given.shape} and {len(outputs)} outputs",
                allowed="one float input [windows, time, feature] and one output",
            )
        _, self.time, self.features = given.shape
        self._tail = tuple(outputs[0].shape[1:])
        self._batch = self._session.batch(_BATCH)

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
            self._session.run(self._session.names, x[start : start + self._batch].astype(np.float32, copy=False))[0]
            for start in range(0, len(x), self._batch)
        ]
        return np.concatenate(parts)


def _load(model: bytes) -> Any:
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
