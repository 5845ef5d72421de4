"""What the worker does on real windows, and that a bad plan, model or normalisation never reaches them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.client import data
from fedsite.client.settings import Settings
from fedsite.client.work import rounds as work
from fedsite.client.work.operations import Operations
from fedsite.models.onnx_limits import OPSETS
from fedsite.protocol import weights
from fedsite.protocol.errors import ConfigError, DocumentError, IntegrityError, PolicyError, RefusalCode
from fedsite.protocol.plan import ModelPlan, PrivacyPlan, ProtectionPlan
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.telemetry import coverage
from fedsite.telemetry.errors import TelemetryError
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.task import load_task

TASK = load_task("pump")
FEATURES = len(TASK.feature_names)
NORMAL = {"mean": [0.0] * FEATURES, "scale": [1.0] * FEATURES}


@pytest.fixture(scope="module")
def operations() -> Operations:
    return Operations()


@pytest.fixture
def unread(operations: Operations, monkeypatch: pytest.MonkeyPatch) -> Operations:
    """Operations that fail the test when they touch data."""

    def touched(*_given: Any) -> None:
        raise AssertionError("data was read")

    monkeypatch.setattr(operations, "_load", touched)
    return operations


@pytest.fixture
def where() -> dict[str, Any]:
    return data.plain(data.location(Settings(), TASK))


def model_of(plan: Any, change: Callable[[dict[str, np.ndarray]], None] = lambda arrays: None) -> bytes:
    from fedsite.models import vector

    arrays = vector.state(work.build(plan, TASK))
    change(arrays)
    return weights.encode(arrays)


def arguments(where: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"location": where, "round": 1, "evaluate": False, "normalisation": NORMAL} | changes


def test_a_run_from_prepare_to_train(operations: Operations, kit: Any, where: dict[str, Any]) -> None:
    plan = kit.centre.plan()
    prepared = operations.prepare({"location": where}, {"plan": plan.encode()})
    assert (prepared.header, set(prepared.blobs)) == ({}, {"coverage"})
    told = coverage.from_plain(json.loads(prepared.blobs["coverage"]))
    assert len(told.entities) == 96
    released = operations.statistics({"location": where}, {"plan": plan.encode()})
    sums = weights.decode(released.blobs["values"], limit=1 << 20)
    assert set(sums) == {"statistics/count", "statistics/square", "statistics/sum"}
    assert sums["statistics/sum"].shape == (FEATURES,)
    answer = operations.train(arguments(where), {"plan": plan.encode(), "model": model_of(plan)})
    values = weights.decode(answer.blobs["values"], limit=1 << 20)
    assert values["weight"] == [1.0]  # the number of windows is private
    assert "loss" not in values
    assert values["delta/layers.0.weight"].shape == (4, FEATURES)
    assert answer.header == {}


def deltas(plan: Any) -> list[Field]:
    """As the centre names the model's updates."""
    arrays = weights.decode(model_of(plan), limit=1 << 20)
    return [Field(name=f"delta/{name}", shape=array.shape, bound=4.0) for name, array in sorted(arrays.items())]


def sum_of(plan: Any, fields: list[Field], purpose: Any = "train") -> bytes:
    return Manifest(purpose=purpose, plan_hash=plan.hash, sites=3, fields=tuple(fields)).encode()


def test_for_a_sum_the_worker_answers_with_its_vector_alone(
    operations: Operations, kit: Any, where: dict[str, Any]
) -> None:
    plan = kit.centre.plan(protection=ProtectionPlan(sites=3))
    fields = deltas(plan)
    blobs = {"plan": plan.encode(), "model": model_of(plan), "manifest": sum_of(plan, fields)}
    answer = operations.train(arguments(where), blobs)
    assert set(answer.blobs) == {"vector", "coverage"}  # the second is for the site's own budget
    assert len(answer.blobs["vector"]) == 4 * sum(field.size for field in fields)
    count = Field(name="statistics/count", shape=(1,), bound=65536.0, wide=True)
    blobs = {"plan": plan.encode(), "manifest": sum_of(plan, [count], "statistics")}
    assert len(operations.statistics({"location": where}, blobs).blobs["vector"]) == 8


@pytest.mark.parametrize("change", [lambda fields: fields[1:], lambda fields: [*fields[1:], Field(
    name=fields[0].name, shape=(99,), bound=4.0)]])  # fmt: skip
def test_a_sum_of_other_updates_than_the_model_s_is_refused_before_data(
    unread: Operations, kit: Any, where: dict[str, Any], change: Callable[[list[Field]], list[Field]]
) -> None:
    plan = kit.centre.plan(protection=ProtectionPlan(sites=3))
    blobs = {"plan": plan.encode(), "model": model_of(plan), "manifest": sum_of(plan, change(deltas(plan)))}
    with pytest.raises(DocumentError, match="manifest: field delta/") as error:
        unread.train(arguments(where), blobs)
    assert error.value.refusal == RefusalCode.PLAN_INVALID


def test_the_first_round_is_rehearsed_on_nothing_while_nobody_waits(
    operations: Operations, kit: Any, where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedsite.client.work import rounds as work

    seen: list[Any] = []
    train = work.train_round

    def watched(plan: Any, data: Any, *given: Any) -> Any:
        seen.append((plan.local.steps, data))
        return train(plan, data, *given)

    monkeypatch.setattr(work, "train_round", watched)
    for privacy in ({}, {"privacy": PrivacyPlan(mode="none")}):
        operations.prepare({"location": where}, {"plan": kit.centre.plan(**privacy).encode()})
        assert seen == []
        operations.rest()
        ((steps, data),) = seen
        assert (steps, len(data.train), len(data.holdout)) == (1, 2, 2)
        assert not data.train.x.any()
        assert not data.train.y.any()
        operations.rest()  # once
        seen.pop()


def test_data_is_loaded_once_while_it_stays_the_same(
    operations: Operations, kit: Any, where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedsite.telemetry import loading

    plan = kit.centre.plan()
    blobs = {"plan": plan.encode(), "model": model_of(plan)}
    operations.train(arguments(where), blobs)
    loads: list[DataLocation] = []
    load = loading.load_site
    monkeypatch.setattr(loading, "load_site", lambda task, place: (loads.append(place), load(task, place))[1])
    operations.train(arguments(where), blobs)
    assert loads == []
    operations.train(arguments({**where, "seed": 5}), blobs)
    assert len(loads) == 1


def nan(arrays: dict[str, np.ndarray]) -> None:
    arrays["layers.0.bias"][0] = np.nan


def extra(arrays: dict[str, np.ndarray]) -> None:
    arrays["more"] = np.zeros(1, np.float32)


def other_shape(arrays: dict[str, np.ndarray]) -> None:
    arrays["layers.0.bias"] = np.zeros(9, np.float32)


@pytest.mark.parametrize("change", [nan, extra, other_shape])
def test_a_model_that_does_not_fit_is_refused_before_data(
    unread: Operations, kit: Any, where: dict[str, Any], change: Callable[[dict[str, np.ndarray]], None]
) -> None:
    plan = kit.centre.plan()
    with pytest.raises(IntegrityError) as error:
        unread.train(arguments(where), {"plan": plan.encode(), "model": model_of(plan, change)})
    assert error.value.refusal == RefusalCode.MODEL_INVALID


def test_bytes_that_are_no_weights_are_refused_before_data(unread: Operations, kit: Any, where: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        unread.train(arguments(where), {"plan": kit.centre.plan().encode(), "model": b"\x80\x04pickle"})


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        {"mean": [0.0], "scale": [1.0]},
        {"mean": [0.0] * FEATURES, "scale": [0.0] * FEATURES},
        {"mean": ["x"] * FEATURES, "scale": [1.0] * FEATURES},
        {"mean": [float("inf")] * FEATURES, "scale": [1.0] * FEATURES},
    ],
)
def test_a_normalisation_that_does_not_fit_is_refused_before_data(
    unread: Operations, kit: Any, where: dict[str, Any], given: Any
) -> None:
    plan = kit.centre.plan()
    with pytest.raises(DocumentError):
        unread.train(arguments(where, normalisation=given), {"plan": plan.encode(), "model": model_of(plan)})


@pytest.mark.parametrize("kind", ["calibrate", "evaluate", "coverage"])
def test_a_graph_that_is_none_of_ours_is_refused_before_data(
    unread: Operations, kit: Any, where: dict[str, Any], kind: str
) -> None:
    onnx = pytest.importorskip("onnx", reason="pip install 'fedsite[server]'")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 1])
    nodes = [onnx.helper.make_node("NonZero", ["x"], ["tap_y"])]
    graph = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [value], [value])).SerializeToString()
    plan = kit.centre.plan()
    blobs = {"plan": plan.encode(), "model": model_of(plan), "graph": graph}
    operation = getattr(unread, kind)
    with pytest.raises(IntegrityError, match=r"NonZero|opset") as error:
        operation(arguments(where, tensors=["y"]), blobs)
    assert error.value.refusal == RefusalCode.MODEL_INVALID


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"tensors": ["y"]}, IntegrityError),
        ({"tensors": ["x", "x"]}, IntegrityError),
        ({"tensors": None}, DocumentError),
        ({"tensors": [1]}, DocumentError),
        ({"tensors": ["x"], "normalisation": None}, DocumentError),
    ],
)
@pytest.mark.parametrize("kind", ["calibrate", "coverage"])
def test_a_calibration_that_does_not_fit_its_graph_is_refused_before_data(
    unread: Operations, kit: Any, where: dict[str, Any], kind: str, given: dict[str, Any], error: type[Exception]
) -> None:
    """Also where whose records it would read is asked first: such a refusal is free, and tells nothing of the data."""
    onnx = pytest.importorskip("onnx", reason="pip install 'fedsite[server]'")
    value, shown = (onnx.helper.make_tensor_value_info(name, 1, ["n", 2, 2]) for name in ("x", "tap_x"))
    nodes = [onnx.helper.make_node("Relu", ["x"], ["tap_x"])]
    graph = onnx.helper.make_graph(nodes, "g", [value], [shown])
    data = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSETS[1])]).SerializeToString()
    blobs = {"plan": kit.centre.plan().encode(), "graph": data}
    with pytest.raises(AssertionError, match="data was read"):
        getattr(unread, kind)(arguments(where, tensors=["x"]), blobs)
    with pytest.raises(error):
        getattr(unread, kind)(arguments(where, **given), blobs)


def test_an_unknown_architecture_is_refused_before_data(unread: Operations, kit: Any, where: dict[str, Any]) -> None:
    plan = kit.centre.plan(model=ModelPlan(name="transformer"))
    with pytest.raises(ConfigError) as error:
        unread.prepare({"location": where}, {"plan": plan.encode()})
    assert error.value.refusal == RefusalCode.MODEL_UNKNOWN


def test_delta_must_be_below_one_over_the_units(operations: Operations, kit: Any, where: dict[str, Any]) -> None:
    plan = kit.centre.plan(privacy=PrivacyPlan(mode="sample", noise_multiplier=1.0, delta=1e-2))
    with pytest.raises(PolicyError, match="privacy units") as error:
        operations.prepare({"location": where}, {"plan": plan.encode()})
    assert error.value.refusal == RefusalCode.PLAN_INVALID


def test_data_that_breaks_the_contract_does_not_join(operations: Operations, kit: Any, tmp_path: Path) -> None:
    table = tmp_path / "pumps.csv"
    table.write_text("machine,time,vibration\nm1,0,1\n")
    where = data.plain(DataLocation(path=table))
    with pytest.raises(TelemetryError, match=r"pumps\.csv"):
        operations.prepare({"location": where}, {"plan": kit.centre.plan().encode()})


def test_the_cost_of_a_run_composes_with_what_was_spent(unread: Operations, kit: Any) -> None:
    plan = kit.centre.plan()
    alone = unread.cost({"unit": plan.privacy.unit, "spent": [], "delta": 1e-5}, {"plan": plan.encode()}).header
    again = unread.cost(
        {"unit": plan.privacy.unit, "spent": alone["spends"], "delta": 1e-5}, {"plan": plan.encode()}
    ).header
    assert alone["run"] == alone["epsilon"] == alone["claim"] == again["run"]
    assert alone["epsilon"] < again["epsilon"] < 2 * alone["epsilon"] + 0.1
    assert [2.0, 0.1, 9] in alone["spends"]
