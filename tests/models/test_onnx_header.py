"""The header reader agrees with the onnx package, and refuses what is no model."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.models import onnx_header
from fedsite.protocol.errors import IntegrityError


def small(*, external=False, inside=False, domain=""):
    tensor = onnx.numpy_helper.from_array(np.ones(2, np.float32), "w")
    if external:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="elsewhere.bin")
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"], domain=domain)
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [value("x", onnx.TensorProto.FLOAT, ["n", 2])],
        [value("y", onnx.TensorProto.FLOAT, ["n", 2])],
        [tensor],
    )
    if inside:
        outer = onnx.helper.make_graph([onnx.helper.make_node("If", ["c"], ["y"], then_branch=graph)], "o", [], [])
        graph = outer
    opsets = [onnx.helper.make_opsetid(domain, 1), onnx.helper.make_opsetid("", 20)] if domain else None
    return onnx.helper.make_model(graph, opset_imports=opsets or [onnx.helper.make_opsetid("", 20)])


def test_reads_what_onnx_wrote():
    model = small(domain="com.example")
    header = onnx_header.read(model.SerializeToString())
    assert header.ir_version == model.ir_version
    assert header.opsets == {"com.example": 1, "": 20}
    assert not header.external


@pytest.mark.parametrize("inside", [False, True])
def test_sees_tensors_kept_in_other_files(inside):
    assert onnx_header.read(small(external=True, inside=inside).SerializeToString()).external


@pytest.mark.parametrize("data", [b"", b"hello, this is text", b"\x00" * 64, b"\xff" * 64, b"PK\x03\x04zip"])
def test_refuses_other_bytes(data):
    with pytest.raises(IntegrityError, match="not an ONNX model"):
        onnx_header.read(data)


def test_refuses_a_model_cut_short():
    data = small().SerializeToString()
    for length in range(len(data)):
        try:
            header = onnx_header.read(data[:length])
        except IntegrityError:
            continue
        assert header.opsets  # a cut between two top-level fields is still a message


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_header_or_an_integrity_error(data):
    with contextlib.suppress(IntegrityError):
        onnx_header.read(data)
