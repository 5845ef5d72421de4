"""Graphs that would loop, allocate without bound or use other operators are refused; ours are let through, as they are.

The rules' shapes are compared with those that the runtime really gives.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fedsite.models import calibration, catalog, extremes, onnx_limits, onnx_reader, quantize, runtime
from fedsite.models.export import to_onnx
from fedsite.protocol.errors import IntegrityError

TIME, FEATURES = 9, 5
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
HUGE = 1 << 40
OPTIONS = {
    "autoencoder": {"activation": "tanh"},
    "cnn1d": {"norm": "group"},
    "cnn2d": {},
    "conv_autoencoder": {"norm": "group", "activation": "leaky_relu"},
    "gru": {"hidden": 4},
    "mlp": {"hidden": [8]},
    "tcn": {"norm": "group"},
}


@pytest.fixture(scope="module")
def ours():
    """fp32, tapped and int8 graphs of every architecture."""
    found = []
    for name, options in OPTIONS.items():
        fp32 = to_onnx(catalog.build(name, options, time=TIME, features=FEATURES, outputs=2, seed=1), TIME, FEATURES)
        found += [fp32, calibration.with_taps(fp32)[0], quantize.quantize(fp32)]
    pooled = {"channels": [3, 4], "stride": 1, "pool": 2, "hidden": []}
    fp32 = to_onnx(catalog.build("cnn2d", pooled, time=TIME, features=FEATURES, outputs=2, seed=1), TIME, FEATURES)
    return [*found, fp32, calibration.with_taps(fp32)[0], quantize.quantize(fp32)]


def test_the_list_is_what_our_export_writes_and_no_more(ours):
    used = set()
    for data in ours:
        graph = onnx_limits.check(data).graph
        nodes = [*graph.nodes, *(inner for node in graph.nodes if node.body for inner in node.body.nodes)]
        used |= {node.operator for node in nodes}
    assert list(OPTIONS) == catalog.names()
    assert used == {*onnx_limits.RULES, onnx_limits.SCAN}


def shown(data):
    """The model with every tensor of its main graph as an output."""
    model = onnx.load_from_string(data)
    names = [name for node in model.graph.node for name in node.output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return model.SerializeToString(), names


def really(data, names, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return dict(zip(names, (array.shape for array in session.run(names, {"x": x})), strict=True))


def test_shapes_are_those_of_the_runtime(ours):
    for data in ours:
        everything, names = shown(data)
        for windows in (1, 3):
            found = onnx_limits.shapes(onnx_reader.read(data), windows)
            x = np.zeros((windows, TIME, FEATURES), np.float32)
            assert really(everything, names, x) == {name: found[name] for name in names}


def model_of(nodes, constants=(), outputs=("y",), shape=("n", 4, 3), inputs=(), opset=20):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [value("x", FLOAT, shape), *inputs],
        [onnx.helper.make_empty_tensor_value_info(name) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()],
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


node = onnx.helper.make_node
dims = st.integers(1, 4)
sizes = st.lists(dims, min_size=1, max_size=4)
axes = st.integers(-5, 4)
whole = st.integers(-6, 6)


@st.composite
def one_operation(draw):
    """An operation of ours on x and constants of random shapes and attributes; many fit nothing."""
    shape = draw(sizes)
    floats = st.builds(lambda size: np.ones(size, np.float32), sizes)
    integers = st.builds(lambda values: np.array(values, np.int64), st.lists(whole, max_size=4))
    near = st.builds(lambda size: np.ones(size, np.float32), st.permutations(shape) | st.just(shape) | sizes)
    attributes = {}
    kind = draw(st.sampled_from(sorted(set(onnx_limits.RULES) - {"DequantizeLinear", "QuantizeLinear", "Resize"})))
    outputs = ["y"]
    if kind in ("Add", "Mul", "Sub", "MatMul", "Gemm"):
        constants = [draw(near)]
        if kind == "Gemm":
            attributes = {"transA": draw(st.integers(0, 1)), "transB": draw(st.integers(0, 1))}
            constants += [draw(floats)] if draw(st.booleans()) else []
    elif kind == "Conv":
        shape = [draw(dims), draw(dims), *draw(st.lists(st.integers(1, 8), min_size=1, max_size=2))]
        group, spatial = draw(st.sampled_from([1, shape[1]])), len(shape) - 2
        kernel = draw(st.lists(st.integers(1, 3), min_size=spatial, max_size=spatial))
        constants = [np.ones((draw(dims) * group, shape[1] // group, *kernel), np.float32)]
        some = st.lists(st.integers(1, 3), min_size=spatial, max_size=spatial)
        attributes = {"group": group, "strides": draw(some), "dilations": draw(some), "pads": draw(some) * 2}
    elif kind == "Slice":
        constants = draw(st.lists(integers, min_size=2, max_size=4))
    elif kind in ("Reshape", "Expand", "Squeeze", "Unsqueeze", "ReduceMean"):
        constants = [draw(integers)]
        if kind == "Reshape":
            attributes = {"allowzero": draw(st.integers(0, 1))}
        if kind == "ReduceMean":
            attributes = {"keepdims": draw(st.integers(0, 1)), "noop_with_empty_axes": draw(st.integers(0, 1))}
    elif kind == "Gather":
        constants, attributes = [draw(integers)], {"axis": draw(axes)}
    elif kind == "Concat":
        constants, attributes = draw(st.lists(near, max_size=2)), {"axis": draw(axes)}
    elif kind == "Transpose":
        constants, attributes = [], {"perm": list(draw(st.permutations(range(len(shape)))))}
    elif kind == "Shape":
        constants, attributes = [], {"start": draw(whole), "end": draw(whole)}
    elif kind == "Split":
        outputs = [f"y{index}" for index in range(draw(st.integers(1, 3)))]
        constants, attributes = draw(st.lists(integers, max_size=1)), {"axis": draw(axes)}
        attributes |= {} if constants else {"num_outputs": len(outputs)}
    elif kind == "InstanceNormalization":
        constants = [np.ones(shape[min(1, len(shape) - 1)], np.float32)] * 2
    else:
        constants = []
    named = {f"c{index}": array for index, array in enumerate(constants)}
    made = node(kind, ["x", *named], outputs, **attributes)
    return model_of([made], named, outputs, shape=["n", *shape[1:]]), outputs, shape


@given(operation=one_operation())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_what_the_rules_let_through_has_the_shape_they_say(operation):
    data, outputs, shape = operation
    try:
        found = onnx_limits.shapes(onnx_reader.read(data), shape[0])
    except IntegrityError:
        assume(False)
    try:
        given = really(data, outputs, np.ones(shape, np.float32))
    except Exception:
        return  # the runtime asks for more than sizes that fit: what is let through need not run
    assert given == {name: found[name] for name in outputs}


def ints(*values):
    return np.array(values, np.int64)


def loop(kind):
    body = onnx.helper.make_graph(
        [node("Identity", ["c"], ["d"])], "b", [], [onnx.helper.make_tensor_value_info("d", onnx.TensorProto.BOOL, [])]
    )
    if kind == "If":
        return model_of([node("If", ["c"], ["y"], then_branch=body, else_branch=body)], {"c": np.array(True)})
    return model_of([node("Loop", ["", "c"], ["y"], body=body)], {"c": ints(1)})


def scan(steps, inner, *, state=(), body_constants=()):
    """x is ignored; a sequence of `steps` is scanned."""
    value = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        inner,
        "b",
        [value("s", FLOAT, None)] * len(state) + [value("i", FLOAT, None)],
        [onnx.helper.make_empty_tensor_value_info("o")],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in dict(body_constants).items()],
    )
    nodes = [
        node("Expand", ["one", "long"], ["sequence"]),
        node("Scan", [*state, "sequence"], ["y"], body=body, num_scan_inputs=1),
    ]
    return model_of(nodes, {"one": np.ones(1, np.float32), "long": ints(steps, 1)})


DOUBLED = [node("Concat", [f"t{n}", f"t{n}"], [f"t{n + 1}"], axis=1) for n in range(40)]
ATTACKS = {
    "if": loop("If"),
    "loop": loop("Loop"),
    "an operator of no model of ours": model_of([node("NonZero", ["x"], ["y"])]),
    "a file of random numbers": model_of([node("RandomNormal", [], ["y"], shape=[HUGE])]),
    "expand": model_of([node("Expand", ["x", "to"], ["y"])], {"to": ints(HUGE, 4, 3)}),
    "a constant to be folded": model_of(
        [node("Expand", ["one", "to"], ["y"])], {"one": np.float32(1), "to": ints(HUGE)}
    ),
    "resize": model_of([node("Resize", ["x", "", "", "to"], ["y"])], {"to": ints(1, HUGE, 3)}),
    "resize by scales": model_of(
        [node("Resize", ["x", "", "by"], ["y"])], {"by": np.array([1, 1e9, 1], np.float32)}
    ),
    "pads": model_of(
        [node("Conv", ["x", "w"], ["y"], pads=[HUGE, HUGE])], {"w": np.ones((1, 4, 1), np.float32)}
    ),
    "pads below zero": model_of(
        [node("Conv", ["x", "w"], ["y"], pads=[-1, -1])], {"w": np.ones((1, 4, 1), np.float32)}
    ),
    "doubling": model_of([node("Identity", ["x"], ["t0"]), *DOUBLED, node("Identity", ["t40"], ["y"])]),
    "outer product": model_of(
        [
            node("Reshape", ["x", "tall"], ["a"]),
            node("Reshape", ["x", "wide"], ["b"]),
            node("MatMul", ["a", "b"], ["y"]),
        ],
        {"tall": ints(-1, 1), "wide": ints(1, -1)},
        shape=("n", 1 << 10, 1 << 10),
    ),
    "a broadcast outer product": model_of(
        [
            node("Reshape", ["x", "tall"], ["a"]),
            node("Reshape", ["x", "wide"], ["b"]),
            node("Add", ["a", "b"], ["y"]),
        ],
        {"tall": ints(-1, 1), "wide": ints(1, -1)},
        shape=("n", 1 << 10, 1 << 10),
    ),
    "an input beyond memory": model_of([node("Identity", ["x"], ["y"])], shape=("n", HUGE, HUGE)),
    "a free length": model_of([node("Identity", ["x"], ["y"])], shape=("n", "t", 3)),
    "a second input": model_of(
        [node("Identity", ["x"], ["y"])], inputs=[onnx.helper.make_tensor_value_info("z", FLOAT, [HUGE])]
    ),
    "a shape out of data": model_of([node("Expand", ["x", "x"], ["y"])]),
    "an output of nothing": model_of([node("Identity", ["x"], ["z"])]),
    "an input of nothing": model_of([node("Identity", ["z"], ["y"]), node("Identity", ["x"], ["z"])]),
    "an output twice": model_of([node("Identity", ["x"], ["y"]), node("Tanh", ["x"], ["y"])]),
    "too many operations": model_of([node("Tanh", ["x"], [f"y{n}"]) for n in range(5000)], outputs=["y0"]),
    "a dimension after another": model_of(
        [node("Unsqueeze", ["x", "axes"], ["y"])], {"axes": np.arange(40, dtype=np.int64)}
    ),
    "a kernel of another size than its weights": model_of(
        [node("Conv", ["x", "w"], ["y"], kernel_shape=[HUGE])], {"w": np.ones((1, 4, 1), np.float32)}
    ),
    "an attribute that changes the meaning": model_of(
        [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER")], {"w": np.ones((1, 4, 1), np.float32)}
    ),
    "a graph where none belongs": model_of(
        [node("Tanh", ["x"], ["y"], body=onnx.helper.make_graph([node("Tanh", ["x"], ["y"])], "b", [], []))]
    ),
    "steps without end": scan(HUGE, [node("Identity", ["i"], ["o"])]),
    "steps for hours": scan(
        1 << 28, [node("Tanh", ["i"], [f"o{n}"]) for n in range(100)] + [node("Tanh", ["i"], ["o"])]
    ),
    "a body that stacks without bound": scan(
        1 << 20, [node("Expand", ["i", "to"], ["o"])], body_constants={"to": ints(1 << 20)}
    ),
    "a body that sees outside": scan(4, [node("Add", ["i", "one"], ["o"])]),
    "a body in a body": scan(4, [node("Scan", ["i"], ["o"], num_scan_inputs=1)]),
    "a state that grows": scan(4, [node("Concat", ["s", "s"], ["o"], axis=0)], state=("one",)),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_graph_never_reaches_the_runtime(name, monkeypatch):
    def reached(*_given, **_named):
        raise AssertionError("the runtime saw it")

    monkeypatch.setattr(onnxruntime, "InferenceSession", reached)
    with pytest.raises(IntegrityError) as error:
        runtime.Session(ATTACKS[name])
    assert error.value.allowed


def picked_by_windows():
    """Harmless but for 7 windows, for which a table holds a size beyond any memory."""
    table = np.full(64, 1, np.int64)
    table[7] = HUGE
    nodes = [
        node("Shape", ["x"], ["n"], start=0, end=1),
        node("Gather", ["table", "n"], ["size"]),
        node("Expand", ["one", "size"], ["tap_t"]),
        node("Identity", ["x"], ["y"]),
    ]
    return model_of(nodes, {"table": table, "one": np.ones(1, np.float32)}, outputs=("y", "tap_t"), shape=("n", 2, 1))


def test_each_number_of_windows_is_looked_at():
    session = runtime.Session(picked_by_windows())
    assert session.run(["tap_t"], np.ones((6, 2, 1), np.float32))[0].shape == (1,)
    with pytest.raises(IntegrityError):
        session.run(["tap_t"], np.ones((7, 2, 1), np.float32))


def test_a_unit_of_another_size_is_told_within_its_own_counts_only():
    """A refusal would tell, exactly and uncharged, that some entity has 7 windows."""
    owner = np.repeat([0, 1], [6, 7])
    x = np.ones((len(owner), 2, 1), np.float32)
    found = extremes.of(picked_by_windows(), ["t"], x, owner, isolated=True, scores=False)
    assert found.high.tolist() == [[1.0, np.inf]]
    assert found.low.tolist() == [[1.0, -np.inf]]


def test_tensors_are_shown_once():
    with pytest.raises(IntegrityError, match="twice"):
        calibration.counts(picked_by_windows(), ["t", "t"], np.ones((1, 2, 1), np.float32))


def test_fewer_windows_at_once_where_a_model_is_large():
    wide = model_of(
        [node("MatMul", ["x", "w"], ["a"]), node("Tanh", ["a"], ["b"]), node("MatMul", ["b", "v"], ["y"])],
        {"w": np.ones((3, 2000), np.float32), "v": np.ones((2000, 1), np.float32)},
        shape=("n", 1000, 3),
    )
    session = runtime.Session(wide)
    assert session.batch(1024) == 128
    assert session.batch(5) == 5
    limits = onnx_limits.cost(onnx_limits.check(wide), 128)
    assert limits.numbers == 128 * 1000 * (2000 + 2000 + 1)
    assert limits.work == 128 * 1000 * (3 * 2000 + 2000 + 2000) + 3 * (1 << 12)


def test_an_architecture_that_sites_would_refuse_is_told_at_the_centre():
    data = onnx.load_from_string(model_of([node("Softmax", ["x"], ["y"])]))
    data.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", FLOAT, ["n", 4, 3]))
    with pytest.raises(IntegrityError, match=r"Softmax.*Add, Concat"):
        calibration.with_taps(data.SerializeToString())
