"""What int8 costs and saves on each architecture: metric, artifact size, latency of one window.

Each architecture is trained a little on a toy task, quantized three ways (ranges from exact counts of 4 sites, from
counts with the noise of a private run, and from synthetic inputs alone), and scored on windows it has not seen.

    python tests/benchmarks/int8.py            a table
    python tests/benchmarks/int8.py --json     one document on the last line
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch

from fedsite.models import calibration, catalog, export, losses, metrics, quantize
from fedsite.models.runtime import Scorer

TIME, FEATURES, SITES, WINDOWS = 24, 6, 4, 1000
NOISE_MULTIPLIER = 20.0


@dataclass(frozen=True)
class Case:
    model: str
    metric: str
    loss: str
    outputs: int


CASES = (
    Case("mlp", "rmse", "mse", 1),
    Case("cnn1d", "rmse", "mse", 1),
    Case("tcn", "rmse", "mse", 1),
    Case("gru", "rmse", "mse", 1),
    Case("cnn1d", "accuracy", "cross_entropy", 3),
    Case("cnn2d", "accuracy", "cross_entropy", 3),
    Case("autoencoder", "auroc", "reconstruction", 1),
    Case("conv_autoencoder", "auroc", "reconstruction", 1),
)


@dataclass(frozen=True)
class Row:
    model: str
    metric: str
    parameters: int
    fp32: float
    int8: float
    int8_noisy: float
    int8_synthetic: float
    fp32_bytes: int
    int8_bytes: int
    fp32_ms: float
    int8_ms: float
    make_seconds: float


def windows(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Waves of three frequencies whose level rises with wear; returns x [n, T, F] and columns (wear, kind, fault)."""
    kind, wear = rng.integers(0, 3, count), rng.random(count)
    fault = rng.random(count) < 0.2
    t = np.arange(TIME)[None, :, None]
    phase = rng.uniform(0, 2 * np.pi, (count, 1, FEATURES))
    wave = np.sin(2 * np.pi * (kind[:, None, None] + 1) * t / TIME + phase)
    x = (
        0.8 * wave
        + 1.5 * (wear[:, None, None] - 0.5) * np.linspace(0.2, 1, FEATURES)
        + 0.3 * rng.normal(size=wave.shape)
    )
    return x.astype(np.float32), np.stack([wear, kind, fault], 1)


def with_faults(x: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A spike on one feature, of a size that is not always seen."""
    found = x.copy()
    for index in np.flatnonzero(truth[:, 2]):
        start = rng.integers(0, TIME - 4)
        found[index, start : start + 4, rng.integers(FEATURES)] += rng.uniform(1.0, 3.5)
    return found


def fit(case: Case, x: np.ndarray, target: np.ndarray) -> torch.nn.Module:
    module = catalog.build(case.model, {}, time=TIME, features=FEATURES, outputs=case.outputs, seed=1)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    loss, generator = losses.loss_function(case.loss), torch.Generator().manual_seed(2)
    inputs, wanted = torch.from_numpy(x), torch.from_numpy(target)
    for _ in range(250):
        index = torch.randint(len(x), (64,), generator=generator)
        optimizer.zero_grad()
        loss(module(inputs[index]), wanted[index]).mean().backward()
        optimizer.step()
    return module


def judge(case: Case, model: bytes, x: np.ndarray, target: np.ndarray) -> float:
    given = Scorer(model).predict(x)
    given = metrics.anomaly_score(x, given) if case.loss == "reconstruction" else given
    metric = metrics.Metric(name=case.metric, maximum=None)
    found = metrics.exact(metric, given, target)
    assert found is not None
    return found


def latency(model: bytes, x: np.ndarray) -> float:
    """Median milliseconds for one window."""
    scorer, spent = Scorer(model), []
    for index in range(200):
        start = time.perf_counter()
        scorer.predict(x[index : index + 1])
        spent.append(time.perf_counter() - start)
    return float(np.median(spent)) * 1e3


def measure(case: Case) -> Row:
    rng = np.random.default_rng(0)
    sites = [windows(rng, WINDOWS) for _ in range(SITES)]
    x, columns = np.concatenate([item[0] for item in sites]), np.concatenate([item[1] for item in sites])
    test, truth = windows(rng, 2000)
    anomaly = case.loss == "reconstruction"
    if anomaly:
        test = with_faults(test, truth, rng)
    column = {"mse": 0, "cross_entropy": 1, "reconstruction": 2}[case.loss]
    kind = np.float32 if case.loss == "mse" else np.int64
    module = fit(case, x, x if anomaly else columns[:, column].astype(kind))
    start = time.perf_counter()
    fp32 = export.to_onnx(module, TIME, FEATURES)
    graph, names = calibration.with_taps(fp32)
    found = [calibration.counts(graph, names, item[0], isolated=False) for item in sites]
    total = {key: np.sum([item[key] for item in found], axis=0) for key in ("positive", "negative")}
    int8 = quantize.quantize(fp32, calibration.ranges(total, names))
    seconds = time.perf_counter() - start
    each = [calibration.counts(graph, names, item[0]) for item in sites]
    sigma = NOISE_MULTIPLIER * calibration.sensitivity(len(names), scores=False) * SITES**0.5
    private = {
        key: np.sum([item[key] for item in each], axis=0) + rng.normal(0, sigma, (len(names), calibration.BINS))
        for key in ("positive", "negative")
    }
    noisy = quantize.quantize(fp32, calibration.ranges(private, names, noise=sigma), noisy=True)
    synthetic = quantize.quantize(fp32)
    target = truth[:, column].astype(kind)
    return Row(
        model=case.model,
        metric=case.metric,
        parameters=sum(item.numel() for item in module.parameters()),
        fp32=judge(case, fp32, test, target),
        int8=judge(case, int8, test, target),
        int8_noisy=judge(case, noisy, test, target),
        int8_synthetic=judge(case, synthetic, test, target),
        fp32_bytes=len(fp32),
        int8_bytes=len(int8),
        fp32_ms=latency(fp32, test),
        int8_ms=latency(int8, test),
        make_seconds=seconds,
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", action="store_true", help="one JSON document on the last line")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    rows = [measure(case) for case in CASES]
    head = ["params", "fp32", "int8", "noisy", "synthetic", "fp32_B", "int8_B", "fp32_ms", "int8_ms", "make_s"]
    print(f"{'model':<17}{'metric':<9}" + "".join(f"{item:>10}" for item in head))
    for row in rows:
        quality = "".join(f"{value:>10.4f}" for value in (row.fp32, row.int8, row.int8_noisy, row.int8_synthetic))
        cost = f"{row.fp32_bytes:>10}{row.int8_bytes:>10}{row.fp32_ms:>10.3f}{row.int8_ms:>10.3f}"
        print(f"{row.model:<17}{row.metric:<9}{row.parameters:>10}{quality}{cost}{row.make_seconds:>10.1f}")
    if chosen.json:
        print(json.dumps({"schema": "fedsite.benchmark.int8/1", "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
