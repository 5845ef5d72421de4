"""Scoring on the device, without torch: windows of a file through the installed release, and its golden self-test.

`python -m fedsite.client.device.scoring SLOT STATE_DIRECTORY PARENT` runs the self-test of a slot in its own process,
before the slot is made current; it ends with its parent, which holds the other end of its stdin.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsite.client.device.release_scorer import ReleaseScorer, WindowScorer, label_units
from fedsite.client.device.slots import read_slot
from fedsite.client.work import lifeline, memory
from fedsite.protocol import instants, output
from fedsite.protocol.errors import ExitCode, IntegrityError, RefusalCode
from fedsite.protocol.release import Manifest
from fedsite.telemetry.dataset import Windows
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.task import Task, read_task

TIMED = 500  # windows timed one by one
SELF_TEST_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What scoring a file gave."""

    windows: int
    part: str  # "holdout" where the file says which windows were held out, else "all"
    labelled: bool
    metric: float | None  # in label units; None without labels
    sums: dict[str, NDArray[np.float64]] | None  # what `metric` is made of; sums of several files add up
    latency_ms: tuple[float, float]  # median and 95th percentile of one window at a time
    alarms: int | None  # windows above the release's threshold; None where there is none
    values: NDArray[np.floating]  # anomaly score [windows], or the model's output in label units [windows, output]
    scored: Windows


def score(
    manifest: Manifest,
    model: bytes,
    where: DataLocation,
    *,
    everything: bool = False,
    scorer: WindowScorer | None = None,
) -> Scores:
    """Score the windows of a file, one thread.

    Args:
        manifest: of the release, verified.
        model: its model.onnx, verified.
        where: the file and its columns.
        everything: all windows, not only those the task holds out.
        scorer: who holds this very release; None: a new one in this process.

    Raises:
        TelemetryError: the file is missing or breaks the task's contract.
        IntegrityError: the model does not take the task's windows.
    """
    from fedsite.models import metrics
    from fedsite.telemetry import loading

    task, windows, part, labelled = _windows(read_task(manifest.task), where, everything)
    mean = np.array(manifest.normalisation.mean, np.float32)
    scale = np.array(manifest.normalisation.scale, np.float32)
    if len(mean) != windows.x.shape[-1]:
        raise IntegrityError(f"the release normalises {len(mean)} features", allowed=f"{windows.x.shape[-1]}")
    scorer = ReleaseScorer(manifest, model) if scorer is None else scorer
    values = scorer.scores([windows.x])[0].values
    metric, sums = None, None
    if labelled:
        units = float(task.label.scale or 1.0)
        # Exactly what the model gave, whoever ran it.
        judged = values if task.loss == "reconstruction" else (values / label_units(task)).astype(np.float32)
        labels = loading.normalise(windows, mean, scale, label_scale=units).y
        sums = metrics.sums(task.metric, judged, labels, scale=units)
        metric = metrics.value(task.metric, sums, threshold=manifest.threshold)
    alarming = task.loss == "reconstruction"
    return Scores(
        windows=len(windows),
        part=part,
        labelled=labelled,
        metric=metric,
        sums=sums,
        latency_ms=_latency(scorer, windows.x),
        alarms=int((values > manifest.threshold).sum()) if alarming and manifest.threshold is not None else None,
        values=values,
        scored=windows,
    )


def self_test(manifest: Manifest, model: bytes) -> None:
    """Run the golden inputs and compare.

    Raises:
        IntegrityError: the model does not load, or an output differs by more than the tolerance.
    """
    from fedsite.models import golden
    from fedsite.models.runtime import Scorer

    given = manifest.golden
    vectors = golden.Vectors(inputs=given.inputs.unpack(), outputs=given.outputs.unpack(), tolerance=given.tolerance)
    try:
        scorer = Scorer(model)
    except Exception as error:
        raise _self_test_error(f"the model does not load ({type(error).__name__})") from error
    golden.check(scorer, vectors)


def self_test_apart(slot: Path, state: Path) -> None:
    """Run the self-test of a slot in another process, which ends whatever the model does, and with this one.

    Raises:
        IntegrityError: it failed, crashed, or did not end in time.
    """
    command = [sys.executable, "-m", "fedsite.client.device.scoring", str(slot), str(state), str(os.getpid())]
    theirs, ours = os.pipe()
    try:
        done = subprocess.run(command, stdin=theirs, capture_output=True, timeout=SELF_TEST_S, start_new_session=True)
    except subprocess.TimeoutExpired:
        raise _self_test_error(f"the self-test did not end within {SELF_TEST_S:.0f} s") from None
    finally:
        os.close(theirs)
        os.close(ours)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        raise _self_test_error([*told, *lines[-1:], f"exit code {done.returncode}"][0])


def _windows(task: Task, where: DataLocation, everything: bool) -> tuple[Task, Windows, str, bool]:
    """The windows to score: as the task splits and labels them, or without what the file does not have."""
    from fedsite.telemetry import loading
    from fedsite.telemetry.errors import Code, TelemetryError

    failure: TelemetryError | None = None
    for variant, part, labelled in _variants(task, everything):
        try:
            data = loading.load_site(variant, where)
        except TelemetryError as error:
            # Only a column that is not there is a reason to do without labels; the first complaint is the one told.
            failure = failure or error
            if error.code not in (Code.COLUMN, Code.TOO_FEW):
                raise failure from None
            continue
        held = part == "holdout" and len(data.holdout) > 0
        return variant, data.holdout if held else data.train, "holdout" if held else "all", labelled
    raise failure or TelemetryError(f"task {task.name} has no windows to score")


def _variants(task: Task, everything: bool) -> Iterator[tuple[Task, str, bool]]:
    labelled = task.label.kind != "none" and task.label.column is not None
    if not everything:
        yield task, "holdout", labelled
    document = copy.deepcopy(task.document)
    document["split"] = {"kind": "none"}
    document["window"]["minimum"] = 1
    yield read_task(document), "all", labelled
    if labelled:
        document["label"]["kind"] = "self" if task.loss == "reconstruction" else "none"
        document["label"]["column"] = None
        yield read_task(document), "all", False


def _latency(scorer: WindowScorer, x: NDArray[np.float32]) -> tuple[float, float]:
    """Median and 95th percentile of the milliseconds of one window; the first runs are not counted."""
    one_by_one = [x[index % len(x)][None] for index in range(min(TIMED, len(x)) + 5)]
    taken = [found.milliseconds for found in scorer.scores(one_by_one)]
    p50, p95 = np.percentile(taken[5:], [50, 95])
    return float(p50), float(p95)


def _self_test_error(found: str, allowed: str = "the golden outputs") -> IntegrityError:
    return IntegrityError(
        f"self-test: {found}",
        allowed=allowed,
        next_step="the current release stays in use; tell the central team",
        refusal=RefusalCode.SELF_TEST,
    )


def main() -> int:
    """Entry point of the process that runs a slot's self-test."""
    lifeline.die_with(int(sys.argv[3]))
    lifeline.end_with_pipe(0)
    memory.limit(memory.default())
    from fedsite.client.identity import site

    slot, state = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        federation = site.load_federation(state)
        manifest, model = read_slot(slot, federation, instants.now())
        self_test(manifest, model)
    except Exception as error:
        return output.fail(error, as_json=False)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
