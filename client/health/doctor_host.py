"""`fedsite doctor` on the host itself: whether its disk can be written, and whether the data keeps its contract."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from fedsite.client.consent.approvals import FOLDER, Approvals
from fedsite.client.health import findings as health
from fedsite.client.health.facts import Facts
from fedsite.client.health.findings import Finding
from fedsite.protocol import storage
from fedsite.protocol.errors import ExitCode, FedsiteError

CONTRACT_S: Final = 300.0  # for one task's data
PAYLOAD: Final = 1 << 20  # bytes of an update, where no plan and no release says how many
_PROBE: Final = 64 << 10  # bytes


def writable(directory: Path) -> Finding | None:
    """Whether the state directory takes a file, as every answer needs."""
    if not directory.exists():
        return None  # `fedsite join` makes it
    path = directory / ".doctor"
    try:
        storage.write_atomic(path, bytes(_PROBE))
    except FedsiteError as error:
        return health.from_error("disk", "the state directory cannot be written", error)
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return None


def payload(directory: Path, facts: Facts | None) -> int:
    """Bytes of one update: of the newest plan, else of the release in use, else of a small model."""
    with contextlib.suppress(FedsiteError, OSError):
        plans = [known.plan for known in Approvals(directory / FOLDER).known()]
        if plans and plans[-1].cost.bytes_up > 0:
            return plans[-1].cost.bytes_up
    if facts is not None and facts.model is not None and facts.model.manifest.fp32_bytes > 0:
        return facts.model.manifest.fp32_bytes
    return PAYLOAD


def contract(task: str, *, seconds: float = CONTRACT_S) -> tuple[str, Finding | None]:
    """What a look at a task's data says, in words; the finding where there was no look.

    In a process of its own: it may take long and much memory, and is ended after `seconds`.
    """
    words = [sys.executable, "-m", "fedsite.client.cli", "data", "check", task, "--json"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return "not finished", _unlooked(task, f"not finished after {seconds:.0f} s", ExitCode.DATA, "warning")
    value = _last(done.stdout)
    if value is not None and value.get("tasks"):
        found = value["tasks"][0]
        errors = sorted({item["code"] for item in found["findings"] if item["severity"] == "error"})
        others = len(found["findings"]) - sum(item["severity"] == "error" for item in found["findings"])
        said = ", ".join(errors) or f"ok, {found['windows']} windows"
        return said + (f", {others} warning{'s' * (others > 1)}" if others else ""), None
    error = _last(done.stderr) or {}
    text = str(error.get("found") or f"fedsite data check ended with {done.returncode}")
    known = done.returncode in {int(code) for code in ExitCode}
    code = ExitCode(done.returncode) if known and done.returncode else ExitCode.INTERNAL
    return "no look was possible", _unlooked(task, text, code, "error")


def _unlooked(task: str, text: str, code: ExitCode, severity: health.Severity) -> Finding:
    return Finding(
        code="contract",
        severity=severity,
        title=f"the data for {task} could not be checked",
        text=text,
        remedy=f"fedsite data check {task}",
        depends_on=("settings",),
        exit_code=code,
    )


def _last(text: str) -> dict[str, Any] | None:
    """The JSON object on the last line; None where there is none."""
    try:
        value = json.loads(text.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return value if isinstance(value, dict) else None
