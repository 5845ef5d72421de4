"""From the final weights to a signed int8 release: export, ranges, quantize, parity, golden vectors, manifest.

Nothing here sees data: ranges and the threshold come from the sites' summed counts, golden vectors are synthetic.
torch and onnx are imported when a release is made, never before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsite.models import calibration, metrics
from fedsite.models.parity import Parity, agreement
from fedsite.protocol import instants, storage
from fedsite.protocol import release as manifests
from fedsite.protocol.errors import IntegrityError
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.weights import Arrays
from fedsite.server.rounds.replies import Shape
from fedsite.telemetry.statistics import Normalisation
from fedsite.telemetry.task import Task

CALIBRATION = "calibration/"
GOLDEN = 8  # windows in the self-test
PROBE = 256  # synthetic windows on which fp32 and int8 are compared
PROBE_SEED = 20_000
LARGEST_DEVIATION = 0.25  # of the outputs' own spread, twice the largest of the shipped tasks: beyond it, another model


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The fp32 model, and the same with every tensor to be quantized as an output."""

    fp32: bytes
    tapped: bytes
    tensors: tuple[str, ...]

    def shapes(self, *, score: bool) -> dict[str, Shape]:
        """What `calibrate` answers with."""
        rows = (len(self.tensors), calibration.BINS)
        shapes: dict[str, Shape] = {f"{CALIBRATION}positive": rows, f"{CALIBRATION}negative": rows}
        return shapes | ({f"{CALIBRATION}score": (calibration.BINS,)} if score else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An int8 model that nobody has signed."""

    fp32: bytes = field(repr=False)
    int8: bytes = field(repr=False)
    deviation: float  # RMS difference of fp32 and int8 outputs on synthetic windows, over the RMS spread of fp32's
    threshold: float | None  # anomaly score above which a window is an alarm


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A release on the disk."""

    version: str
    manifest_hash: str
    folder: Path
    model_sha256: str
    bytes: int
    fp32_bytes: int


def export(plan: RoundPlan, task: Task, params: Mapping[str, NDArray[Any]]) -> Graph:
    """The graph of the final weights.

    Raises:
        ConfigError: the architecture cannot be exported.
        IntegrityError: the weights are not its own.
    """
    import torch

    from fedsite.models import catalog, vector
    from fedsite.models.export import to_onnx

    torch.set_num_threads(1)
    steps, features = task.input_shape
    module = catalog.build(
        plan.model.name, plan.model.options, time=steps, features=features, outputs=task.outputs, seed=plan.seed
    )
    vector.load(module, dict(params))
    fp32 = to_onnx(module, steps, features)
    tapped, tensors = calibration.with_taps(fp32)
    return Graph(fp32=fp32, tapped=tapped, tensors=tuple(tensors))


def quantize(
    graph: Graph, task: Task, normalisation: Normalisation, counts: Arrays | None, *, noise: float = 0.0
) -> Candidate:
    """The int8 model.

    Args:
        graph: of `export`.
        task: for its public ranges and its metric.
        normalisation: the run's.
        counts: the sites' summed calibration counts without prefix; None where there are none.
        noise: standard deviation of the noise on each summed count.
    """
    from fedsite.models.quantize import quantize as to_int8

    inputs = synthetic(task, normalisation, PROBE, PROBE_SEED)
    names = list(graph.tensors)
    ranges = None if counts is None else calibration.ranges(counts, names, noise=noise)
    int8 = to_int8(graph.fp32, ranges, inputs=inputs, noisy=noise > 0)
    threshold = None
    if counts is not None and "score" in counts:
        metric = metrics.read(task.metric)
        threshold = calibration.threshold(counts["score"], quantile=metric.quantile, factor=metric.factor, noise=noise)
    deviation = agreement(graph.fp32, int8, inputs).relative_error
    return Candidate(fp32=graph.fp32, int8=int8, deviation=deviation, threshold=threshold)


def synthetic(task: Task, normalisation: Normalisation, count: int, seed: int) -> NDArray[np.float32]:
    """Normalised windows inside the task's public ranges, the same for the same arguments: nobody's data."""
    bounds = np.asarray(task.feature_bounds, dtype=np.float32)
    low = (bounds[:, 0] - normalisation.mean) / normalisation.scale
    high = (bounds[:, 1] - normalisation.mean) / normalisation.scale
    return calibration.synthetic_inputs(low, high, task.input_shape[0], count=count, seed=seed)


def check_parity(plan: RoundPlan, task: Task, candidate: Candidate, fp32: float | None, int8: float | None) -> None:
    """Refuse an int8 model that lost too much.

    Args:
        plan: for the bound.
        task: for the metric's direction.
        candidate: the model.
        fp32: the metric on the sites' holdouts; None where it was not measured.
        int8: the same of the int8 model.

    Raises:
        IntegrityError: the metric got worse by more than the plan's bound, or the outputs are not the same model's.
    """
    if not candidate.deviation <= LARGEST_DEVIATION:
        raise IntegrityError(
            f"int8 outputs deviate from fp32 by {candidate.deviation:.2f} of their spread",
            allowed=f"at most {LARGEST_DEVIATION}",
            next_step="look at the activation ranges: privacy.calibration_noise, or a model with narrower activations",
        )
    lost = Parity(metric=task.metric.name, better=task.metric.better, fp32=fp32, int8=int8).loss
    if lost is not None and lost > plan.release.parity:
        raise IntegrityError(
            f"int8 {task.metric.name} is {int8:.4g} and fp32 {fp32:.4g}: {100 * lost:.1f} % worse",
            allowed=f"at most {100 * plan.release.parity:.1f} % (release.parity)",
            next_step="launch with a larger release.parity, or with release.enabled=false",
        )


class Signer:
    """Signs candidates and writes them where sites fetch them."""

    def __init__(self, folder: Path, key: SigningKey, federation: str, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._key = key
        self._federation = federation
        self._clock = clock

    def sign(
        self,
        plan: RoundPlan,
        task: Task,
        candidate: Candidate,
        normalisation: Normalisation,
        *,
        parity: manifests.Parity,
        privacy: Mapping[str, Any],
    ) -> Signed:
        """Write `<version>/model.onnx`, then `<version>/manifest.json`: without a manifest there is no release.

        Raises:
            StorageError: the disk is full or read-only.
        """
        from fedsite.models import golden

        vectors = golden.make(candidate.int8, synthetic(task, normalisation, GOLDEN, seed=0))
        version = f"{task.name}-{plan.run_id.lower()}"[:64]
        manifest = manifests.make(
            candidate.int8,
            version=version,
            federation=self._federation,
            run_id=plan.run_id,
            plan_hash=plan.hash,
            task=plan.task,
            normalisation=manifests.Normalisation(
                mean=tuple(float(value) for value in normalisation.mean),
                scale=tuple(float(value) for value in normalisation.scale),
            ),
            fp32_bytes=len(candidate.fp32),
            parity=parity,
            threshold=candidate.threshold,
            golden=manifests.Golden(
                inputs=manifests.Tensor.pack(vectors.inputs),
                outputs=manifests.Tensor.pack(vectors.outputs),
                tolerance=vectors.tolerance,
            ),
            privacy=dict(privacy),
            created=instants.text(datetime.fromtimestamp(self._clock(), UTC)),
        )
        data = manifests.sign(manifest, self._key)
        folder = storage.private_directory(self._folder / version)
        storage.write_atomic(folder / "model.onnx", candidate.int8)
        storage.write_atomic(folder / "manifest.json", data)
        return Signed(
            version=version,
            manifest_hash=manifests.manifest_hash(data),
            folder=folder,
            model_sha256=manifest.model_sha256,
            bytes=manifest.bytes,
            fp32_bytes=manifest.fp32_bytes,
        )
