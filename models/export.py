"""PyTorch model to an fp32 ONNX graph with a free batch size: nothing in it but arithmetic."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fedsite.protocol.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

INPUT, OUTPUT = "x", "y"
_CHATTY = ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir")


def to_onnx(module: nn.Module, time: int, features: int) -> bytes:
    """The fp32 graph `x` [n, time, features] -> `y`, any n ≥ 1; the same weights always give the same bytes.

    Raises:
        ConfigError: the model uses an operation that ONNX does not have.
    """
    import torch

    from fedsite.models import graph

    example = torch.zeros(2, time, features)
    training = module.training
    module.eval()
    try:
        with _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("windows", min=1)},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except Exception as error:
        raise ConfigError(
            f"{type(module).__name__} cannot be exported to ONNX ({type(error).__name__})",
            allowed="operations that ONNX has, on a batch of any size",
            next_step="release.enabled=false trains the model without a release",
        ) from error
    finally:
        module.train(training)
    return graph.encode(graph.strip(program.model_proto))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and warns about its own parts; none of it is for whoever runs fedsite."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    sink = io.StringIO()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
