"""Bounds that a graph gives by itself, and what they are worth: a tanh whose inputs reach far beyond where it moves."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from fedsite.models import calibration, parity, quantize, saturation

INFO, NODE = onnx.helper.make_tensor_value_info, onnx.helper.make_node


def model(*nodes, weights=None, outputs=("y",)):
    graph = onnx.helper.make_graph(
        list(nodes),
        "g",
        [INFO("x", onnx.TensorProto.FLOAT, ["n", 1, 4])],
        [INFO(name, onnx.TensorProto.FLOAT, ["n", None]) for name in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def test_bounds_by_hand():
    found = saturation.bounds(model(NODE("Tanh", ["x"], ["h"]), NODE("Sigmoid", ["h"], ["y"])))
    # Where half a step is left: of [-1, 1] in 255 steps that is 1/255, of [0, 1] it is 1/510.
    assert math.tanh(found["x"][1]) == pytest.approx(1 - 1 / 255)
    assert found["x"][0] == -found["x"][1]
    assert saturation.bounds(model(NODE("Sigmoid", ["x"], ["y"])))["x"][1] == pytest.approx(math.log(509))
    # `h` is both: what tanh gives, and all that the sigmoid reads.
    assert found["h"] == (-1.0, 1.0)
    assert found["y"] == (0.0, 1.0)


def test_a_tensor_that_somebody_else_reads_keeps_its_range():
    nodes = NODE("Tanh", ["x"], ["h"]), NODE("Add", ["x", "h"], ["y"])
    assert saturation.bounds(model(*nodes)) == {"h": (-1.0, 1.0)}
    shown = model(NODE("Neg", ["x"], ["z"]), NODE("Tanh", ["z"], ["y"]), outputs=("y", "z"))
    assert saturation.bounds(shown) == {"y": (-1.0, 1.0)}
    assert saturation.bounds(model(NODE("Relu", ["x"], ["y"]))) == {}


def test_within_narrows_and_never_widens():
    ranges = {"a": (-40.0, 2.0), "b": (0.0, 9.0)}
    assert saturation.within(ranges, {"a": (-3.0, 3.0), "c": (0.0, 1.0)}) == {"a": (-3.0, 2.0), "b": (0.0, 9.0)}
    assert ranges["a"] == (-40.0, 2.0)


def test_inputs_where_tanh_stands_still_take_no_resolution(monkeypatch):
    # One column drives its tanh to 150, where it stands still; the other three work between -1 and 1.
    x = np.random.default_rng(0).normal(size=(400, 1, 4)).astype(np.float32)
    x[:, :, 0] = np.abs(x[:, :, 0])
    fp32 = model(
        NODE("Reshape", ["x", "shape"], ["flat"]),
        NODE("MatMul", ["flat", "first"], ["before"]),
        NODE("Tanh", ["before"], ["after"]),
        NODE("MatMul", ["after", "last"], ["y"]),
        weights={
            "shape": np.array([-1, 4]),
            "first": np.diag([50.0, 0.3, 0.3, 0.3]).astype(np.float32),
            "last": np.ones((4, 1), np.float32),
        },
    ).SerializeToString()
    graph, names = calibration.with_taps(fp32)
    ranges = calibration.ranges(calibration.counts(graph, names, x, isolated=False), names)
    assert max(high for _, high in ranges.values()) > 100

    def error():
        return parity.agreement(fp32, quantize.quantize(fp32, ranges), x).relative_error

    assert error() < 0.1
    monkeypatch.setattr(saturation, "bounds", lambda model: {})
    assert error() > 0.5
