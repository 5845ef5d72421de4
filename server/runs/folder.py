"""A run on the disk, `server/runs/<run id>/`: its files, and what a reader can say while another process drives it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from fedsite.protocol import documents, ids, shape, storage, weights
from fedsite.protocol.errors import ConfigError, IntegrityError
from fedsite.protocol.plan import RoundPlan
from fedsite.server.runs import checkpoint
from fedsite.server.runs.journal import FILE, Journal, Reader

LAUNCH_SCHEMA: Final = "fedsite.launch/1"
RESULT_SCHEMA = "fedsite.result/1"
MAX_MODEL = 4 << 30  # bytes
State = Literal["launched", "running", "completed", "failed", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What the driver needs beside the plan, and who launches needs not tell the sites."""

    schema: Literal["fedsite.launch/1"] = LAUNCH_SCHEMA
    trained: tuple[str, ...]  # names of the trained parameters, sorted
    overrides: tuple[str, ...] = ()  # as typed, for people


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One line of `fedsite runs list`."""

    run_id: str
    task: str
    state: State
    created: str
    round: int  # last round that ended
    rounds: int
    metric: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The files of one run; names only, nothing is opened."""

    path: Path
    run_id: str = field(init=False)

    def __post_init__(self) -> None:
        ids.run_bytes(self.path.name)
        object.__setattr__(self, "run_id", self.path.name)

    @property
    def plan_file(self) -> Path:
        """Canonical RoundPlan."""
        return self.path / "plan.json"

    @property
    def initial_file(self) -> Path:
        """Weights the run starts from."""
        return self.path / "initial.safetensors"

    @property
    def journal_file(self) -> Path:
        """SQLite journal."""
        return self.path / FILE

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def result_file(self) -> Path:
        """`fedsite.result/1`; there is one exactly when the run is over."""
        return self.path / "result.json"

    @property
    def key_file(self) -> Path:
        """The run's decryption key, encrypted; there is one exactly while the run needs it."""
        return self.path / "run.key"

    @property
    def stop_file(self) -> Path:
        """Exists once somebody asked the run to stop."""
        return self.path / "stop"

    def create(self, plan: RoundPlan, initial: weights.Arrays, launch: Launch) -> None:
        """Write a run that nobody drives yet; the plan comes last, so that a half-written run is no run.

        Raises:
            StorageError: the disk is full or read-only.
        """
        storage.private_directory(self.path)
        storage.private_directory(self.checkpoints)
        storage.write_atomic(self.initial_file, weights.encode(initial))
        storage.write_atomic(self.path / "launch.json", documents.canonical(shape.plain(launch)))
        with contextlib.closing(Journal(self.journal_file, self.run_id)) as journal:
            journal.record(
                "launched",
                task=plan.task_name,
                rounds=plan.rounds.count,
                privacy=plan.privacy.mode,
                epsilon=plan.cost.epsilon,
                site_epsilon=plan.cost.site_epsilon,
                protection=plan.protection.mode,
                parameters=plan.model.parameters,
            )
        storage.write_atomic(self.plan_file, plan.encode())

    def offer(self, epoch: int) -> None:
        """Journal that a driver may claim `epoch`, before one is started."""
        with contextlib.closing(Journal(self.journal_file, self.run_id)) as journal:
            journal.offer(epoch)

    def plan(self) -> RoundPlan:
        """The plan.

        Raises:
            ConfigError: no such run.
        """
        if not self.plan_file.exists():
            raise ConfigError(f"no run {self.run_id}", next_step="fedsite runs list")
        return RoundPlan.parse(storage.read(self.plan_file))

    def launch(self) -> Launch:
        """What the plan does not say."""
        return shape.read(Launch, documents.document(storage.read(self.path / "launch.json"), LAUNCH_SCHEMA))

    def initial(self, plan: RoundPlan) -> weights.Arrays:
        """The initial weights.

        Raises:
            IntegrityError: not the weights the plan names.
        """
        arrays = weights.decode(storage.read(self.initial_file, limit=MAX_MODEL), limit=MAX_MODEL)
        if weights.digest(arrays) != plan.model.init_hash:
            raise IntegrityError(f"{self.initial_file} is not the model of the plan", allowed=plan.model.init_hash)
        return arrays

    def result(self) -> dict[str, Any] | None:
        """The result, once the run is over."""
        if not self.result_file.exists():
            return None
        return documents.document(storage.read(self.result_file, limit=256 << 20), RESULT_SCHEMA, limit=256 << 20)

    def summary(self) -> Summary:
        """Where the run stands."""
        plan, result = self.plan(), self.result()
        events = Reader(self.journal_file).events()
        ended = [event for event in events if event["kind"] == "round_finished"]
        metrics = [event["metric"] for event in events if event["kind"] == "evaluated"]
        state: State = "running" if any(event["kind"] == "started" for event in events) else "launched"
        if result is not None:
            state = result["outcome"]
        return Summary(
            run_id=self.run_id,
            task=plan.task_name,
            state=state,
            created=plan.created,
            round=ended[-1]["round"] if ended else 0,
            rounds=plan.rounds.count,
            metric=metrics[-1] if metrics else None,
            reason="" if result is None else result["reason"],
        )

    def files(self) -> dict[str, Any]:
        """Paths of what the run has left, for people and scripts."""
        return {
            "directory": str(self.path),
            "plan": str(self.plan_file),
            "initial": str(self.initial_file),
            "checkpoints": [str(path) for path in checkpoint.paths(self.checkpoints)],
            "result": str(self.result_file) if self.result_file.exists() else None,
        }


def all_runs(folder: Path) -> list[RunDirectory]:
    """Every whole run below `folder`, oldest first."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        with contextlib.suppress(ConfigError):
            run = RunDirectory(path)
            if run.plan_file.exists():
                found.append(run)
    return found


def find(folder: Path, name: str) -> RunDirectory:
    """The run whose id is, or alone begins with, `name`; `latest` is the newest.

    Raises:
        ConfigError: none, or more than one.
    """
    runs = all_runs(folder)
    if name == "latest" and runs:
        return runs[-1]
    matches = [run for run in runs if run.run_id.startswith(name.upper())]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(run.run_id for run in runs[-5:]) or "none yet"
    what = f"no run {name}" if not matches else f"{len(matches)} runs begin with {name}"
    raise ConfigError(what, allowed=known, next_step="fedsite runs list")
