"""What int8 costs and saves: metric, artifact size, latency of one window, for each architecture and for shipped tasks.

Each model is trained a little, quantized three ways (ranges from exact counts of the sites, from counts with the noise
of a private run, and from synthetic inputs alone), and scored on windows it has not seen.

    python tests/benchmarks/int8.py                                  every architecture on a toy task
    python tests/benchmarks/int8.py --task engine_rul --task pump    shipped tasks, on their sites' data
    python tests/benchmarks/int8.py --json                           one document on the last line
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from fedsite.models import calibration, catalog, export, losses, metrics, quantize, vector
from fedsite.models.runtime import Scorer
from fedsite.telemetry import loading
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.statistics import window_sums
from fedsite.telemetry.task import load_task

TIME, FEATURES, SITES, WINDOWS = 24, 6, 4, 1000
NOISE_MULTIPLIER = 20.0


@dataclass(frozen=True)
class Case:
    """A model and the data it meets. Shapes: `train` one [windows, time, feature] per site; targets beside them."""

    name: str
    model: str
    options: dict[str, Any]
    outputs: int
    loss: str
    metric: metrics.Metric
    train: list[np.ndarray]
    train_target: list[np.ndarray]
    test: np.ndarray
    test_target: np.ndarray
    bounds: tuple[np.ndarray, np.ndarray]  # of normalised inputs, from the schema
    scale: float = 1.0
    steps: int = 250


@dataclass(frozen=True)
class Row:
    task: str
    model: str
    metric: str
    parameters: int
    windows: int
    fp32: float
    int8: float
    int8_noisy: float
    int8_synthetic: float
    fp32_bytes: int
    int8_bytes: int
    fp32_ms: float
    int8_ms: float
    make_seconds: float


def toy_cases() -> list[Case]:
    """Waves of three frequencies whose level rises with wear; a fault is a spike on one feature."""
    rng = np.random.default_rng(0)
    sites = [toy_windows(rng, WINDOWS) for _ in range(SITES)]
    test, truth = toy_windows(rng, 2000)
    spiked = test.copy()
    for index in np.flatnonzero(truth[:, 2]):
        start = rng.integers(0, TIME - 4)
        spiked[index, start : start + 4, rng.integers(FEATURES)] += rng.uniform(1.0, 3.5)
    kinds = {
        "wear": ("mse", "rmse", 1, 0, np.float32, test),
        "kind": ("cross_entropy", "accuracy", 3, 1, np.int64, test),
        "fault": ("reconstruction", "auroc", 1, 2, np.int64, spiked),
    }
    chosen = [("wear", name) for name in ("mlp", "cnn1d", "tcn", "gru")]
    chosen += [("kind", name) for name in ("cnn1d", "cnn2d")]
    chosen += [("fault", name) for name in ("autoencoder", "conv_autoencoder")]
    found = []
    for label, model in chosen:
        loss, metric, outputs, column, kind, x = kinds[label]
        found.append(
            Case(
                name=label,
                model=model,
                options={},
                outputs=outputs,
                loss=loss,
                metric=metrics.Metric(name=metric),
                train=[item[0] for item in sites],
                train_target=[item[1][:, column].astype(kind) for item in sites],
                test=x,
                test_target=truth[:, column].astype(kind),
                bounds=(np.full(FEATURES, -4.0), np.full(FEATURES, 4.0)),
            )
        )
    return found


def toy_windows(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """x [windows, time, feature] and its columns wear, kind, fault."""
    kind, wear = rng.integers(0, 3, count), rng.random(count)
    fault = rng.random(count) < 0.2
    phase = rng.uniform(0, 2 * np.pi, (count, 1, FEATURES))
    wave = np.sin(2 * np.pi * (kind[:, None, None] + 1) * np.arange(TIME)[None, :, None] / TIME + phase)
    level = 1.5 * (wear[:, None, None] - 0.5) * np.linspace(0.2, 1, FEATURES)
    x = 0.8 * wave + level + 0.3 * rng.normal(size=wave.shape)
    return x.astype(np.float32), np.stack([wear, kind, fault], 1)


def shipped_case(name: str) -> Case:
    """A shipped task on the data of its sites, normalised with their summed statistics."""
    task = load_task(name)
    names = loading.site_names(task, DataLocation())[: task.data.sites]
    sites = [loading.load_site(task, DataLocation(site=site)) for site in names]
    low, high = sites[0].minimum, sites[0].maximum
    total = [window_sums(site.train.x, low, high) for site in sites]
    scales = sum(total[1:], start=total[0]).normalisation(low, high)
    label = float(task.label.scale or 1.0)
    train = [loading.normalise(site.train, scales.mean, scales.scale, label_scale=label) for site in sites]
    test = [loading.normalise(site.holdout, scales.mean, scales.scale, label_scale=label) for site in sites]
    return Case(
        name=name,
        model=task.model.name,
        options=dict(task.model.options),
        outputs=task.outputs,
        loss=task.loss,
        metric=metrics.read(task.metric),
        train=[item.x for item in train],
        train_target=[item.y for item in train],
        test=np.concatenate([item.x for item in test]),
        test_target=np.concatenate([item.y for item in test]),
        bounds=((low - scales.mean) / scales.scale, (high - scales.mean) / scales.scale),
        scale=label,
        steps=2000,
    )


def fit(case: Case) -> torch.nn.Module:
    x, target = np.concatenate(case.train), np.concatenate(case.train_target)
    module = catalog.build(case.model, case.options, time=x.shape[1], features=x.shape[2], outputs=case.outputs, seed=1)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    loss, generator = losses.loss_function(case.loss), torch.Generator().manual_seed(2)
    inputs = torch.from_numpy(x)
    wanted = inputs if case.loss == "reconstruction" else torch.from_numpy(target)
    for _ in range(case.steps):
        index = torch.randint(len(x), (64,), generator=generator)
        optimizer.zero_grad()
        loss(module(inputs[index]), wanted[index]).mean().backward()
        optimizer.step()
    return module


def judge(case: Case, model: bytes) -> float:
    scorer, reference = Scorer(model), None
    given = scorer.predict(case.test)
    if case.loss == "reconstruction":
        given = metrics.anomaly_score(case.test, given)
        if case.metric.name == "f1_at_threshold":
            train = np.concatenate(case.train)
            reference = metrics.anomaly_score(train, scorer.predict(train))
    target = case.test_target
    target = target[:, None] if case.loss == "mse" and target.ndim == 1 else target
    found = metrics.exact(case.metric, given, target, scale=case.scale, reference=reference)
    return float("nan") if found is None else found


def latency(model: bytes, x: np.ndarray) -> float:
    """Median milliseconds for one window."""
    scorer, spent = Scorer(model), []
    for index in range(min(200, len(x))):
        start = time.perf_counter()
        scorer.predict(x[index : index + 1])
        spent.append(time.perf_counter() - start)
    return float(np.median(spent)) * 1e3


def measure(case: Case) -> Row:
    module = fit(case)
    _, steps, features = case.test.shape
    start = time.perf_counter()
    fp32 = export.to_onnx(module, steps, features)
    graph, names = calibration.with_taps(fp32)
    found = [calibration.counts(graph, names, x, isolated=False) for x in case.train]
    total = {key: np.sum([item[key] for item in found], axis=0) for key in ("positive", "negative")}
    inputs = calibration.synthetic_inputs(*case.bounds, steps)
    int8 = quantize.quantize(fp32, calibration.ranges(total, names), inputs=inputs)
    seconds = time.perf_counter() - start
    each = [calibration.counts(graph, names, x) for x in case.train]
    sigma = NOISE_MULTIPLIER * calibration.sensitivity(len(names), scores=False) * len(each) ** 0.5
    rng = np.random.default_rng(3)
    private = {
        key: np.sum([item[key] for item in each], axis=0) + rng.normal(0, sigma, (len(names), calibration.BINS))
        for key in ("positive", "negative")
    }
    ranges = calibration.ranges(private, names, noise=sigma)
    noisy = quantize.quantize(fp32, ranges, inputs=inputs, noisy=True)
    synthetic = quantize.quantize(fp32, inputs=inputs)
    return Row(
        task=case.name,
        model=case.model,
        metric=case.metric.name,
        parameters=vector.parameters(module),
        windows=sum(len(x) for x in case.train),
        fp32=judge(case, fp32),
        int8=judge(case, int8),
        int8_noisy=judge(case, noisy),
        int8_synthetic=judge(case, synthetic),
        fp32_bytes=len(fp32),
        int8_bytes=len(int8),
        fp32_ms=latency(fp32, case.test),
        int8_ms=latency(int8, case.test),
        make_seconds=seconds,
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--task", action="append", default=[], help="a shipped task instead of the toy ones")
    arguments.add_argument("--json", action="store_true", help="one JSON document on the last line")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    head = [
        "params",
        "windows",
        "fp32",
        "int8",
        "noisy",
        "synthetic",
        "fp32 B",
        "int8 B",
        "fp32 ms",
        "int8 ms",
        "make s",
    ]
    print(f"{'task':<15}{'model':<17}{'metric':<16}" + "".join(f"{item:>10}" for item in head))
    rows = []
    for case in [shipped_case(name) for name in chosen.task] or toy_cases():
        row = measure(case)
        rows.append(row)
        quality = "".join(f"{value:>10.4f}" for value in (row.fp32, row.int8, row.int8_noisy, row.int8_synthetic))
        cost = f"{row.fp32_bytes:>10}{row.int8_bytes:>10}{row.fp32_ms:>10.3f}{row.int8_ms:>10.3f}"
        sizes = f"{row.parameters:>10}{row.windows:>10}"
        print(f"{row.task:<15}{row.model:<17}{row.metric:<16}{sizes}{quality}{cost}{row.make_seconds:>10.1f}")
    if chosen.json:
        print(json.dumps({"schema": "fedsite.benchmark.int8/1", "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
