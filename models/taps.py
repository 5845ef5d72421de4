"""Extra outputs on a graph: every tensor that int8 will touch, inside recurrent bodies too. Server only (`onnx`)."""

from __future__ import annotations

from typing import Any

import onnx

from fedsite.models import extremes, graph, onnx_limits, quantize


def add(data: bytes) -> tuple[bytes, list[str]]:
    """The prepared graph with a tap per tensor, and the tensors' names in graph order.

    Raises:
        IntegrityError: not ONNX, or with operators that sites refuse (`onnx_limits`), as an architecture that came with
            another package may have.
    """
    model = graph.decode(graph.prepared(data))
    names = graph.activations(model, quantize.insert)
    for name in names:
        _tap(model.graph, name, f"{extremes.TAP}{name}")
    for scan in graph.scans(model):
        inner = graph.body(scan)
        inside = graph.activations(graph.as_model(inner, model), quantize.insert_products)
        for name in inside:
            # A body's extra output is stacked over the steps; the Scan hands it out under the tap's own name.
            _tap(inner, name, f"step_{name}")
            scan.output.append(f"{extremes.TAP}{name}")
            model.graph.output.append(_float(f"{extremes.TAP}{name}"))
        for attribute in scan.attribute:
            if attribute.name in ("scan_output_axes", "scan_output_directions"):
                attribute.ints.extend([0] * len(inside))
        names += inside
    tapped = graph.encode(model)
    onnx_limits.check(tapped)  # what a site would refuse need not be sent
    return tapped, names


def _tap(inner: Any, name: str, tap: str) -> None:
    inner.node.append(onnx.helper.make_node("Identity", [name], [tap], name=tap))
    inner.output.append(_float(tap))


def _float(name: str) -> Any:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
