"""`fedsite audit`: is the log whole, what stands in it, and where it ends. Files only: works offline, on both sides."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsite.protocol import output

if TYPE_CHECKING:
    from fedsite.protocol.audit import Entry
    from fedsite.protocol.audit_logs import Checked

SCHEMA = "fedsite.audit-verified/1"
_Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[PATH]...", help="Files or folders of logs; without any, the logs of this host."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_WIDE = 144  # characters of an entry where no terminal says otherwise
_FIRST = ("kind", "work", "purpose", "round", "code", "outcome", "run_id", "sha256")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="The signed record of what left this site, or this server did.")
    group.command("verify")(verify)
    group.command("show")(show)
    group.command("head")(head)
    app.add_typer(group, name="audit", rich_help_panel="Site operator")


def verify(
    paths: _Paths = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="The other side's log, or a file that audit head --json wrote; may be repeated."
        ),
    ] = None,
    json: _Json = False,
) -> None:
    """Check logs from first entry to last, and against the heads that others hold; exit 8 names what is wrong."""
    from fedsite.protocol import audit_logs

    found = audit_logs.check(_paths(paths), against or [])
    for one in found:
        if one.verdict.problem is not None:
            raise audit_logs.damaged(one, one.verdict.problem)
    _check_conflicts(found)
    rows = [_row(one) for one in found]
    shown = [
        {"log of": row["signer"], "entries": f"{row['first']} to {row['last']}", "compared": row["compared"]}
        for row in rows
    ]
    output.emit({"schema": SCHEMA, "ok": True, "logs": rows} if json else shown, json)
    if not json and not any(row["compared"] for row in rows):
        output.say(
            "every entry is as it was signed; whether the newest were cut off, only a head that somebody else holds can"
            " show: fedsite audit verify --against THE-OTHER-SIDES-LOG"
        )


def show(
    paths: _Paths = None,
    run: Annotated[str, typer.Option(help="Only entries of this run: its id or the beginning of it.")] = "",
    last: Annotated[int, typer.Option(min=0, help="Only so many, from the end; 0: all.")] = 0,
    json: _Json = False,
) -> None:
    """Print entries, one a line; with --json as they stand in the log. They are not checked: fedsite audit verify."""
    from collections import deque

    from fedsite.protocol import audit, audit_lines, shape
    from fedsite.protocol.errors import FedsiteError

    found = 0
    for files in audit_lines.logs(_paths(paths)).values():
        shown: deque[Entry] = deque(maxlen=last or None)
        for line in audit_lines.lines(files):
            try:
                entry = audit.read(line.data)
            except FedsiteError as error:
                output.say(f"{line.where} is no entry ({error.found}): fedsite audit verify")
                continue
            if run and not str(entry.facts.get("run_id", "")).upper().startswith(run.upper()):
                continue
            found += 1
            if last:
                shown.append(entry)
            else:
                _print(shape.plain(entry), json)
        for entry in shown:
            _print(shape.plain(entry), json)
    if run and not found:
        output.say(f"no entry is of a run {run!r}; next: fedsite audit show")


def head(paths: _Paths = None, json: _Json = False) -> None:
    """Print the number and hash of the last entry: whoever keeps it can show later that nothing before was changed."""
    from fedsite.protocol import audit, audit_lines

    rows = []
    for signer, files in audit_lines.logs(_paths(paths)).items():
        entry = audit_lines.head(files)
        if entry is not None:
            made = entry.head
            rows.append({"signer": signer, "sequence": made.sequence, "hash": made.hash, "at": entry.at})
    output.emit({"schema": audit.HEADS_SCHEMA, "heads": rows} if json else rows, json)


def _paths(given: list[Path] | None) -> list[Path]:
    """What was given, or the logs below the state directory."""
    from fedsite.protocol.audit_file import FOLDER
    from fedsite.protocol.errors import ConfigError
    from fedsite.protocol.storage import state_home

    if given:
        return given
    found = [path for side in ("site", "server") if (path := state_home() / side / FOLDER).is_dir()]
    if not found:
        raise ConfigError(
            f"no audit log in {state_home()}",
            allowed="a host that has joined or serves a federation",
            next_step="fedsite audit verify PATH, or set FEDSITE_HOME",
        )
    return found


def _check_conflicts(found: list[Checked]) -> None:
    from fedsite.protocol import audit_logs
    from fedsite.protocol.errors import IntegrityError

    for one in found:
        for signer, sequence in audit_logs.conflicts(one.verdict):
            raise IntegrityError(
                f"the log of {one.signer} holds two entries {sequence} of the log of {signer}: that one was rewritten,"
                " or put back from a backup",
                allowed="one entry of each number",
                next_step=f"ask the owner of {signer} for that log, and: fedsite audit verify IT --against"
                f" {one.files[0].parent}",
            )


def _row(one: Checked) -> dict[str, Any]:
    verdict = one.verdict
    last = verdict.head
    return {
        "signer": verdict.signer,
        "path": str(one.files[0].parent),
        "first": verdict.first,
        "last": last.sequence if last is not None else 0,
        "hash": last.hash if last is not None else None,
        "compared": verdict.held,
    }


def _print(entry: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.emit(entry, True)
        return
    found = {name: value for name, value in entry["facts"].items() if value not in ("", None)}
    order = [name for name in _FIRST if name in found] + [name for name in found if name not in _FIRST]
    # Of a run as much as tells it from the others.
    facts = " ".join(f"{name}={str(found[name])[:12] if name == 'run_id' else _short(found[name])}" for name in order)
    line = f"{entry['sequence']:>6}  {entry['at']}  {entry['kind']:<12}  {facts}"
    wide = output.columns() if sys.stdout.isatty() else _WIDE
    output.emit(line if len(line) <= wide else line[: wide - 1] + "…", False)


def _short(value: Any) -> str:
    """Of a list or object the number of its items; of a hash its beginning."""
    if isinstance(value, list | dict):
        return f"[{len(value)}]"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 26 else f"{text[:12]}…"
