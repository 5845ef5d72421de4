"""`fedsite data check`: whether this site's data meets a task's contract, before any run asks."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from fedsite.client.settings import Settings

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
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Check this site's data against a task: files, columns, ranges, gaps, number of windows."""
    from fedsite.client import settings

    given = list(overrides or [])
    if task is not None and "=" in task:
        given, task = [task, *given], None
    # The words of a launch mean the same here.
    wanted = [task] if task is not None else [item.partition("=")[2] for item in given if item.startswith(_TASK_KEYS)]
    chosen = settings.load(settings.state_directory(), [item for item in given if not item.startswith(_TASK_KEYS)])
    checked = [_check(name, chosen) for name in (wanted or _named(chosen))]
    ok = all(item["ok"] for item in checked)
    output.emit({"schema": SCHEMA, "ok": ok, "tasks": checked} if json else _text(checked), json)
    if not ok:
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


def _check(name: str, chosen: Settings) -> dict[str, Any]:
    """One task's findings and counts.

    Raises:
        TaskError: there is no such task, or it is wrong itself.
    """
    from fedsite.client import data
    from fedsite.telemetry import contract, loading
    from fedsite.telemetry.errors import TaskError, TelemetryError
    from fedsite.telemetry.task import load_task

    task = load_task(name)
    where = data.location(chosen, task)
    findings = [
        {
            "code": str(finding.code),
            "severity": finding.severity,
            "channel": finding.channel,
            "count": finding.count,
            "found": finding.text,
            "allowed": finding.allowed,
            "next": finding.remedy,
        }
        for finding in contract.check(task, where, now=time.time())
    ]
    ok = all(finding["severity"] != "error" for finding in findings)
    value: dict[str, Any] = {"task": task.name, "ok": ok, "source": "", "findings": findings}
    with contextlib.suppress(TelemetryError):
        value["source"] = data.source_id(task, where)
    counts = {"windows": 0, "holdout": 0, "entities": 0, "overlap": task.overlap}
    if ok:
        try:
            found = loading.load_site(task, where)
        except TaskError:
            raise
        except TelemetryError as error:
            failure = {"code": str(error.code), "severity": "error", "channel": "", "count": 0, "found": error.found}
            findings.append({**failure, "allowed": error.allowed, "next": error.next_step})
            return {**value, **counts, "ok": False}
        entities = len(set(found.train.entity.tolist()))
        counts |= {"windows": len(found.train), "holdout": len(found.holdout), "entities": entities}
    return {**value, **counts}


def _text(checked: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for item in checked:
        counts = f"{item['windows']} training windows, {item['holdout']} held out, {item['entities']} entities"
        lines.append(f"{item['task']}: {'ok, ' + counts if item['ok'] else 'not ok'}  ({item['source']})")
        for finding in item["findings"]:
            lines.append(f"  {finding['severity']} ({finding['code']}): {finding['found']}")
            lines += [f"  {name}: {finding[name]}" for name in ("allowed", "next") if finding[name]]
    return lines
