"""The reader agrees with the onnx package on our models, and refuses what is no model or has more in it than ours."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.models import onnx_reader, protobuf
from fedsite.protocol.errors import IntegrityError


def small(domain=""):
    """y = x + w, and the model as the onnx package has it, to be spoilt."""
    tensor = onnx.numpy_helper.from_array(np.ones(2, np.float32), "w")
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"], domain=domain)
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [value("x", onnx.TensorProto.FLOAT, ["n", 2])],
        [value("y", onnx.TensorProto.FLOAT, ["n", 2])],
        [tensor],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])


def test_reads_what_onnx_wrote():
    found = onnx_reader.read(small().SerializeToString())
    assert found.opsets == {"": 20}
    (node,) = found.graph.nodes
    assert (node.operator, node.inputs, node.outputs) == ("Add", ("x", "w"), ("y",))
    assert found.graph.constants["w"].shape == (2,)
    assert found.graph.inputs == (onnx_reader.Value(name="x", kind=1, shape=(None, 2)),)
    assert found.graph.outputs == ("y",)


@pytest.mark.parametrize("raw", [True, False])
@given(values=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8))
def test_integers_of_a_constant_are_read_in_both_forms(raw, values):
    model = small()
    array = np.array(values, np.int64)
    form = array.tobytes() if raw else values
    model.graph.initializer.append(onnx.helper.make_tensor("s", onnx.TensorProto.INT64, [len(values)], form, raw=raw))
    assert onnx_reader.read(model.SerializeToString()).graph.constants["s"].values == tuple(values)


def external(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere.bin")


def function(model):
    node = onnx.helper.make_node("Add", ["a", "a"], ["b"])
    model.functions.append(onnx.helper.make_function("", "Relu", ["a"], ["b"], [node], list(model.opset_import)))


def foreign(model):
    model.graph.node[0].domain = "com.example"


def overload(model):
    model.graph.node[0].overload = "other"


def sparse(model):
    model.graph.sparse_initializer.add().dims.append(1 << 40)


def declared(model):
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1 << 40]))


def training(model):
    model.training_info.add()


def larger_than_it_holds(model):
    model.graph.initializer[0].dims[0] = 1 << 40


def negative(model):
    model.graph.initializer[0].dims[:] = [-1, -2]


def text(model):
    model.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("w", onnx.TensorProto.STRING, [1], [b"x"]))


def named_twice(model):
    model.graph.initializer.append(model.graph.initializer[0])


def constant_attribute(model):
    tensor = onnx.numpy_helper.from_array(np.ones(2, np.float32))
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("value", tensor))


def reference(model):
    attribute = model.graph.node[0].attribute.add()
    attribute.name, attribute.type, attribute.ref_attr_name = "axis", onnx.AttributeProto.INT, "outer"


def branch(model):
    inner = onnx.GraphProto()
    inner.CopyFrom(model.graph)
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("then_branch", inner))


def body_in_body(model):
    for _ in range(2):
        inner = onnx.GraphProto()
        inner.CopyFrom(model.graph)
        model.graph.node[0].attribute.append(onnx.helper.make_attribute("body", inner))


SPOILT = [
    external, function, foreign, overload, sparse, declared, training, larger_than_it_holds, negative, text,
    named_twice, constant_attribute, reference, branch, body_in_body,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT)
def test_refuses_what_our_export_never_writes(spoil):
    model = small()
    spoil(model)
    with pytest.raises(IntegrityError, match="the model has"):
        onnx_reader.read(model.SerializeToString())


def field(number, content):
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def test_what_comes_twice_is_refused_because_readers_differ():
    data = small().SerializeToString()
    # A lenient reader merges both graphs: the second one's operations then run too.
    with pytest.raises(IntegrityError, match="twice"):
        onnx_reader.read(data + field(7, b""))
    with pytest.raises(IntegrityError, match="unknown"):
        onnx_reader.read(data + field(99 >> 3, b""))
    with pytest.raises(IntegrityError, match="not one integer"):
        onnx_reader.read(data + field(1, b""))


def test_many_small_pieces_are_refused_before_they_fill_the_memory():
    model = small()
    model.graph.node[0].input.extend([""] * 1000)
    with pytest.raises(IntegrityError, match="more than"):
        onnx_reader.read(model.SerializeToString())
    packed = b"\0" * ((1 << 20) + 1)
    message = protobuf.Message(pieces={5: [memoryview(packed)]})
    with pytest.raises(protobuf.FieldError):
        message.integers(5)


@pytest.mark.parametrize("data", [b"", b"hello, this is text", b"\x00" * 64, b"\xff" * 64, b"PK\x03\x04zip"])
def test_refuses_other_bytes(data):
    with pytest.raises(IntegrityError):
        onnx_reader.read(data)


def test_refuses_a_model_cut_short():
    data = small().SerializeToString()
    for length in range(len(data)):
        try:
            found = onnx_reader.read(data[:length])
        except IntegrityError:
            continue
        assert found.opsets  # a cut between two top-level fields is still a message


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_model_or_an_integrity_error(data):
    with contextlib.suppress(IntegrityError):
        onnx_reader.read(data)
    with contextlib.suppress(IntegrityError):
        onnx_reader.read(field(7, data[:120]) + field(8, b"\x10\x14") + b"\x08\x0a")
