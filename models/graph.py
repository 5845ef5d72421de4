"""Surgery on ONNX graphs: short names, no metadata, self-contained Scan bodies, and which tensors int8 will touch.

Server only: needs the `onnx` package. The exporter writes stack traces with local paths into every node; none may be
left in a file that is signed and sent to every site.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from fedsite.protocol.errors import IntegrityError

Graph = Any  # onnx.GraphProto
Model = Any  # onnx.ModelProto
PRODUCER = "fedsite"


def encode(model: Model) -> bytes:
    """The model's bytes, the same for the same model."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def decode(data: bytes) -> Model:
    """Parse an ONNX model.

    Raises:
        IntegrityError: not ONNX.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
        onnx.checker.check_model(model)
    except Exception as error:
        raise IntegrityError(f"not an ONNX model ({type(error).__name__})", allowed="an ONNX graph") from None
    return model


def strip(model: Model) -> Model:
    """A copy without metadata, with short names, whose Scan bodies hold their own weights."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.producer_name, copy.producer_version, copy.doc_string, copy.domain = PRODUCER, "", "", ""
    del copy.metadata_props[:]
    del copy.functions[:]
    for item in [item for item in copy.opset_import if item.domain != ""]:
        copy.opset_import.remove(item)
    for node in scans(copy):
        _own_weights(body(node), copy.graph)
    _drop_unused(copy.graph)
    counter = iter(range(1 << 30))
    _shorten(copy.graph, counter, {})
    return copy


def scans(model: Model) -> list[Any]:
    """The Scan nodes of the main graph."""
    return [node for node in model.graph.node if node.op_type == "Scan"]


def body(scan: Any) -> Graph:
    """The graph a Scan runs at each step."""
    return next(attribute.g for attribute in scan.attribute if attribute.name == "body")


def as_model(graph: Graph, like: Model) -> Model:
    """A Scan's body as a model of its own."""
    return onnx.helper.make_model(graph, opset_imports=like.opset_import, ir_version=like.ir_version)


@lru_cache(maxsize=8)
def prepared(data: bytes) -> bytes:
    """The fp32 graph after the optimizations that quantization starts from; names of taps and ranges refer to this."""
    decode(data)
    with tempfile.TemporaryDirectory(prefix="fedsite-") as folder:
        path = Path(folder) / "prepared.onnx"
        settings = onnxruntime.SessionOptions()
        settings.optimized_model_filepath = str(path)
        # Constants folded, nodes merged, but still standard operators: what the quantizer knows.
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        settings.intra_op_num_threads = 1
        onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
        return encode(strip(onnx.load(str(path))))


def activations(model: Model, quantize: Callable[[Model, dict[str, tuple[float, float]]], Model]) -> list[str]:
    """Names of the tensors of `model`'s main graph that `quantize` puts a QuantizeLinear on, in graph order."""
    constants = {item.name for item in model.graph.initializer}
    produced = [item.name for item in model.graph.input if item.name not in constants]
    produced += [name for node in model.graph.node for name in node.output if name]
    wide = dict.fromkeys(produced, (-1.0, 1.0))
    # The quantizer keeps an output's name for the dequantized tensor and renames what goes in.
    touched = {
        node.input[0].removesuffix("_QuantizeLinear_Input")
        for node in quantize(model, wide).graph.node
        if node.op_type == "QuantizeLinear"
    }
    return [name for name in produced if name in touched]


def _own_weights(inner: Graph, outer: Graph) -> None:
    """Copy the outer initializers that `inner` reads into it: a quantizer of the outer graph must not touch them."""
    known = {item.name: item for item in outer.initializer}
    own = {item.name for item in inner.initializer}
    for name in dict.fromkeys(name for node in inner.node for name in node.input):
        if name in known and name not in own:
            inner.initializer.append(known[name])


def _drop_unused(graph: Graph) -> None:
    used = {name for node in graph.node for name in node.input} | {item.name for item in graph.output}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _shorten(graph: Graph, counter: Iterator[int], outer: dict[str, str]) -> None:
    """Rename inner tensors and nodes and drop every comment; inputs and outputs of the main graph keep their names."""
    kept = set() if outer else {item.name for item in (*graph.input, *graph.output)}
    names = dict(outer)
    graph.name, graph.doc_string = "g", ""
    for items in (graph.input, graph.initializer, graph.output):
        for item in items:
            if item.name not in kept and item.name not in names:
                names[item.name] = f"t{next(counter)}"
            item.name = names.get(item.name, item.name)
            item.doc_string = ""
            del item.metadata_props[:]
    for item in graph.initializer:
        item.ClearField("data_location")  # the default written out: a field no device reads
    del graph.value_info[:]
    del graph.metadata_props[:]
    for index, node in enumerate(graph.node):
        node.name, node.doc_string = f"n{index}", ""
        del node.metadata_props[:]
        node.input[:] = [names.get(name, name) for name in node.input]
        for name in node.output:
            if name and name not in kept and name not in names:
                names[name] = f"t{next(counter)}"
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                # A marker keeps `outer` true: a body's own inputs and outputs are renamed, being seen by nobody.
                _shorten(attribute.g, counter, {**names, "": ""})
