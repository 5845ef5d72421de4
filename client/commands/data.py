"""`fedsite data check`: whether this site's data meets a task's contract, before any run asks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import ConfigError, ExitCode, FedsiteError

if TYPE_CHECKING:
    from fedsite.client.settings import Settings
    from fedsite.telemetry.contract import Checked, Reference
    from fedsite.telemetry.findings import Finding
    from fedsite.telemetry.task import Task

SCHEMA = "fedsite.data-check/1"
_TASK_KEYS = ("task=", "task_file=")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="This site's telemetry: check.")
    group.command("check")(check)
    app.add_typer(group, name="data", rich_help_panel="Site operator")


def check(
    task: Annotated[
        str | None, typer.Argument(help="Name or file of a task; by default those site.yaml names.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as data.path=FILE.")
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take the data as it is now for right: drift is judged from here on.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Check this site's data against a task: files, columns, ranges, rate, gaps, freshness, labels, drift."""
    from fedsite.client import settings
    from fedsite.client.health import last_check
    from fedsite.protocol import instants

    given = list(overrides or [])
    if task is not None and "=" in task:
        given, task = [task, *given], None
    # The words of a launch mean the same here.
    wanted = [task] if task is not None else [item.partition("=")[2] for item in given if item.startswith(_TASK_KEYS)]
    laid = [item for item in given if not item.startswith(_TASK_KEYS)]
    directory = settings.state_directory()
    chosen = settings.load(directory, laid)
    if accept and not directory.is_dir():
        raise ConfigError(
            "this host has not joined a federation: there is no place for a reference",
            allowed="--accept at a site",
            next_step="fedsite join",
        )
    # Data that only this command line names is tried, and no reference for the site's own.
    own = directory.is_dir() and not any(item.strip().startswith("data.") for item in laid)
    checked = [_check(name, chosen, directory, own=own, accept=accept) for name in (wanted or _named(chosen))]
    for item in checked if own else ():
        errors = [finding["code"] for finding in item["findings"] if finding["severity"] == "error"]
        last_check.keep(directory, item["task"], errors, instants.now())
    ok = all(item["ok"] for item in checked)
    output.emit({"schema": SCHEMA, "ok": ok, "tasks": checked} if json else _text(checked), json)
    if not ok:
        if accept:
            output.say("not accepted: data that breaks the contract is no reference")
        raise typer.Exit(int(ExitCode.DATA))


def _named(chosen: Settings) -> list[str]:
    """The tasks that the site's settings name.

    Raises:
        ConfigError: they name none.
    """
    from fedsite.telemetry.task import shipped_names

    names = [*chosen.data.tasks, *(chosen.policy.tasks or ())]
    if not names:
        raise ConfigError(
            "which task? site.yaml names none (data.tasks, policy.tasks)",
            allowed=", ".join(shipped_names()),
            next_step="fedsite data check TASK",
        )
    return list(dict.fromkeys(names))


def _check(name: str, chosen: Settings, directory: Path, *, own: bool, accept: bool) -> dict[str, Any]:
    """One task's findings and counts.

    Raises:
        TaskError: there is no such task, or it is wrong itself.
        StorageError: a reference is to be taken and cannot be written.
    """
    from fedsite.client import data, reference
    from fedsite.telemetry import contract, findings
    from fedsite.telemetry.errors import Code, TelemetryError
    from fedsite.telemetry.task import load_task

    task = load_task(name)
    where = data.location(chosen, task)
    known, unreadable = None, None
    try:
        known = None if accept else reference.load(directory, task)
    except FedsiteError as error:
        unreadable = findings.warning(Code.DRIFT, error.found, error.allowed, error.next_step)
    try:
        checked = contract.inspect(task, where, now=time.time(), reference=known)
    except MemoryError:
        raise TelemetryError(
            f"{where.name(task)} takes more memory than this host gives",
            allowed="data that fits into it",
            next_step="is the file what it should be? else take less of it",
        ) from None
    taken = False
    if checked.summary is not None and (accept or (own and known is None and unreadable is None)):
        known, taken = _taken(directory, task, checked, required=accept)
    source = ""
    with contextlib.suppress(TelemetryError):
        source = data.source_id(task, where)
    windows = checked.data
    return {
        "task": task.name,
        "ok": checked.ok,
        "source": source,
        "findings": [_plain(finding) for finding in [*checked.findings, *([unreadable] if unreadable else [])]],
        "windows": 0 if windows is None else len(windows.train),
        "holdout": 0 if windows is None else len(windows.holdout),
        "entities": 0 if windows is None else len(set(windows.train.entity.tolist())),
        "overlap": task.overlap,
        "reference": None if known is None else {"taken": known.taken, "rows": known.summary.rows, "new": taken},
    }


def _taken(directory: Path, task: Task, checked: Checked, *, required: bool) -> tuple[Reference | None, bool]:
    """The new reference; one that nobody asked for may fail to be written."""
    from fedsite.client import reference
    from fedsite.protocol import instants

    assert checked.summary is not None
    try:
        return reference.keep(directory, task, checked.summary, instants.now()), True
    except FedsiteError as error:
        if required:
            raise
        output.say(f"no reference was kept: {error.found}; {error.next_step}")
        return None, False


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "code": str(finding.code),
        "severity": finding.severity,
        "channel": finding.channel,
        "count": finding.count,
        "found": finding.text,
        "allowed": finding.allowed,
        "next": finding.remedy,
    }


def _text(checked: Sequence[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for item in checked:
        counts = f"{item['windows']} training windows, {item['holdout']} held out, {item['entities']} entities"
        lines.append(f"{item['task']}: {'ok, ' + counts if item['ok'] else 'not ok'}  ({item['source']})")
        for finding in item["findings"]:
            told = [f"{finding['severity']} ({finding['code']}): {finding['found']}"]
            told += [f"{name}: {finding[name]}" for name in ("allowed", "next") if finding[name]]
            lines += [part for line in told for part in output.fold(line, first="  ", then="    ")]
        since = item["reference"]
        if since is not None:
            what = "taken now: drift is judged from here on" if since["new"] else f"of {since['taken']}"
            lines.append(f"  reference {what} ({since['rows']} readings)")
    return lines
