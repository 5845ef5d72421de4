"""From a module to int8 bytes that score: export, taps, ranges, quantization, golden vectors and parity."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from fedsite.models import calibration, catalog, golden, graph, parity, quantize
from fedsite.models.export import to_onnx
from fedsite.models.runtime import Scorer
from fedsite.protocol.errors import ConfigError, DataError, IntegrityError

TIME, FEATURES, OUTPUTS = 8, 3, 2
OPTIONS = {"gru": {"hidden": 8}, "cnn1d": {"norm": "group"}, "mlp": {"hidden": [16]}}
BOUNDS = np.full(FEATURES, 4.0)


def inputs(count=64, seed=0):
    return np.random.default_rng(seed).normal(size=(count, TIME, FEATURES)).astype(np.float32)


@pytest.fixture(scope="module", params=catalog.names())
def made(request):
    name = request.param
    module = catalog.build(name, OPTIONS.get(name, {}), time=TIME, features=FEATURES, outputs=OUTPUTS, seed=1)
    return module, to_onnx(module, TIME, FEATURES)


@pytest.fixture(scope="module")
def mlp():
    module = catalog.build("mlp", {"hidden": [16]}, time=TIME, features=FEATURES, outputs=OUTPUTS, seed=1)
    return to_onnx(module, TIME, FEATURES)


def test_export_answers_like_the_module_for_any_batch(made, capfd):
    module, fp32 = made
    for count in (0, 1, 3, 64):
        x = inputs(count)
        np.testing.assert_allclose(Scorer(fp32).predict(x), module(torch.from_numpy(x)).detach().numpy(), atol=1e-5)
    assert module.training
    shown = capfd.readouterr()
    assert shown.out == shown.err == ""


def test_export_carries_no_paths_or_traces(made):
    _, fp32 = made
    for data in (fp32, graph.prepared(fp32), quantize.quantize(fp32)):
        for word in (b".py", b"/fedsite", b"torch", b"namespace", b"stack"):
            assert word not in data


def test_int8_from_counts_of_sites_agrees_with_fp32(made):
    _, fp32 = made
    taps, names = calibration.with_taps(fp32)
    assert len(set(names)) == len(names) >= 3
    parts = [calibration.counts(taps, names, inputs(64, seed), isolated=False) for seed in (1, 2, 3)]
    total = {key: np.sum([part[key] for part in parts], axis=0) for key in parts[0]}
    ranges = calibration.ranges(total, names)
    assert set(ranges) == set(names)
    int8 = quantize.quantize(fp32, ranges)
    assert quantize.quantize(fp32, ranges) == int8
    assert parity.agreement(fp32, int8, inputs(256, 9)).relative_error < 0.12
    assert Scorer(int8).predict(inputs(5)).shape == Scorer(fp32).predict(inputs(5)).shape


def test_weights_are_int8_and_use_seven_bits(made):
    _, fp32 = made
    model = onnx.load_from_string(quantize.quantize(fp32))
    graphs = [model.graph, *(graph.body(scan) for scan in graph.scans(model))]
    tensors = [onnx.numpy_helper.to_array(item) for part in graphs for item in part.initializer]
    weights = [array for array in tensors if array.dtype == np.int8 and array.ndim >= 2]
    products = [n for part in graphs for n in part.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(weights) >= len(products) >= 2
    assert all(np.abs(array.astype(int)).max() <= 64 for array in weights)
    assert not [array for array in tensors if array.dtype == np.float32 and array.ndim >= 2 and array.size > 32]


def test_a_recurrence_of_its_default_size_scores():
    # Above a thousand weights the quantizer writes where they lie, which a device takes for a file beside the model.
    module = catalog.build("gru", {}, time=TIME, features=FEATURES, outputs=OUTPUTS, seed=1)
    fp32 = to_onnx(module, TIME, FEATURES)
    assert parity.agreement(fp32, quantize.quantize(fp32), inputs()).relative_error < 0.12


def test_golden_vectors_hold_here_and_not_for_another_model(made):
    _, fp32 = made
    int8 = quantize.quantize(fp32)
    vectors = golden.make(int8, inputs(4, 3))
    assert vectors.inputs.shape == (4, TIME, FEATURES)
    assert 0 < vectors.tolerance < 0.2
    assert golden.check(Scorer(int8), vectors) == 0.0
    moved = golden.Vectors(inputs=vectors.inputs, outputs=vectors.outputs + 1.0, tolerance=vectors.tolerance)
    with pytest.raises(IntegrityError, match="golden self-test: an output differs"):
        golden.check(Scorer(int8), moved)


def test_ranges_are_used_and_checked(mlp):
    _, names = calibration.with_taps(mlp)
    narrow = quantize.quantize(mlp, dict.fromkeys(names, (-0.01, 0.01)))
    assert np.abs(Scorer(narrow).predict(inputs())).max() <= 0.0101
    # A range too small and read through noise is stretched toward what synthetic inputs show, to four times at most.
    wider = quantize.quantize(mlp, dict.fromkeys(names, (-0.01, 0.01)), noisy=True)
    assert 0.02 < np.abs(Scorer(wider).predict(inputs())).max() <= 0.0404
    with pytest.raises(IntegrityError, match="range of tensor"):
        quantize.quantize(mlp, {names[0]: (0.0, float("nan"))})
    with pytest.raises(IntegrityError, match="not an ONNX model"):
        quantize.quantize(b"no model")


def test_noise_on_a_rectified_tensor_cannot_let_negatives_through():
    module = catalog.build("cnn1d", {}, time=TIME, features=FEATURES, outputs=OUTPUTS, seed=1)
    fp32 = to_onnx(module, TIME, FEATURES)
    taps, names = calibration.with_taps(fp32)
    ranges = calibration.ranges(calibration.counts(taps, names, inputs()), names)
    broken = {name: (min(low, -1.0), high) for name, (low, high) in ranges.items()}
    assert parity.agreement(fp32, quantize.quantize(fp32, broken), inputs()).relative_error < 0.1


def test_export_is_deterministic_and_names_what_it_cannot_do(mlp):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    module = catalog.build("mlp", {"hidden": [16]}, time=TIME, features=FEATURES, outputs=OUTPUTS, seed=1)
    assert to_onnx(module, TIME, FEATURES) == mlp
    with pytest.raises(ConfigError, match=r"Odd cannot be exported.*release\.enabled=false"):
        to_onnx(Odd(), TIME, FEATURES)


def test_parity_by_hand():
    better = parity.Parity(metric="rmse", better="lower", fp32=10.0, int8=10.1)
    assert better.loss == pytest.approx(0.01)
    assert better.within(0.02)
    assert not better.within(0.005)
    higher = parity.Parity(metric="auroc", better="higher", fp32=0.8, int8=0.82)
    assert higher.loss == pytest.approx(-0.025)
    assert higher.within(0.0)
    assert parity.Parity(metric="auroc", better="higher", fp32=None, int8=0.8).within(0.1) is None


def test_agreement_of_a_model_with_itself(mlp):
    same = parity.agreement(mlp, mlp, inputs(), classes=True)
    assert (same.windows, same.relative_error, same.largest_error, same.same_class) == (64, 0.0, 0.0, 1.0)
    assert parity.agreement(mlp, mlp, inputs(0)).relative_error == 0.0


def test_scorer_refuses_other_windows_and_other_models(mlp):
    with pytest.raises(DataError, match=r"\[2, 8, 4\].*\[windows, 8, 3\]"):
        Scorer(mlp).predict(np.zeros((2, TIME, FEATURES + 1), np.float32))
    with pytest.raises(IntegrityError, match="outputs"):
        Scorer(calibration.with_taps(mlp)[0])
    with pytest.raises(IntegrityError, match="not an ONNX model"):
        Scorer(b"\x00" * 100)
    with pytest.raises(IntegrityError):
        Scorer(mlp[:-200])
    with pytest.raises(IntegrityError, match="bytes"):
        Scorer(b"\x08" * ((64 << 20) + 1))


@pytest.mark.parametrize(
    ("opset", "domain", "words"),
    [(99, "", "opset 99.*upgrade"), (9, "", "opset 9"), (20, "com.example", "com.example")],
)
def test_scorer_refuses_foreign_operators(mlp, opset, domain, words):
    model = onnx.load_from_string(mlp)
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    if domain:
        model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    with pytest.raises(IntegrityError, match=words):
        Scorer(model.SerializeToString())


def test_flipped_bytes_never_crash_the_reader(mlp):
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(mlp), 60):
        data = bytearray(mlp)
        data[position] ^= 0xFF
        try:
            Scorer(bytes(data)).predict(inputs(1))
        except (IntegrityError, DataError):
            continue
