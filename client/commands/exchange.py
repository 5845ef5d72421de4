"""`fedsite exchange`: taking part without a network, by files that people carry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsite.protocol import output

if TYPE_CHECKING:
    from fedsite.client.carried.exchange import Done
    from fedsite.protocol.messages import Header

IMPORTED = "fedsite.exchange-done/1"
EXPORTED = "fedsite.exchange-answers/1"
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
_LATER = {
    "approval": "a person has to decide: fedsite rounds show {run}, then approve or reject, then import the file again",
    "not-now": "not at this hour, or paused (fedsite status): import the file again later",
}


def register(app: typer.Typer) -> None:
    """Add `fedsite exchange`."""
    found = typer.Typer(no_args_is_help=True)
    found.command("import")(take_in)
    found.command("export")(export)
    app.add_typer(
        found, name="exchange", rich_help_panel="Site operator", help="Take part without a network, by signed files."
    )


def take_in(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="From the central team: fedsite server exchange export.")
    ],
    json: _Json = False,
) -> None:
    """Do what the file asks, as far as this site's policy allows it; the same file again changes nothing."""
    from fedsite.client import settings
    from fedsite.client.carried import exchange
    from fedsite.protocol.exchange_medium import read_parcel

    def progress(number: int, count: int, header: Header) -> None:
        output.say(f"{number} of {count}: {_words(header)}")

    parcel, done = exchange.run(settings.state_directory(), read_parcel(file), progress)
    rows = [_row(item) for item in done]
    if json:
        output.emit({"schema": IMPORTED, "sequence": parcel.head.sequence, "messages": rows}, True)
        return
    output.emit(rows, False)
    for item in done:
        if item.state == "later":
            output.say(_LATER[str(item.code)].format(run=item.header.run_id))
    if any(item.state in ("answered", "before") for item in done):
        output.say("next: fedsite exchange export FILE, and carry that to the central team")


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write; a file that is there is replaced.")],
    json: _Json = False,
) -> None:
    """Write every answer that still counts into one signed file; nothing is written where there is none."""
    from fedsite.client import settings
    from fedsite.client.carried import answers as carried_answers
    from fedsite.client.carried import exchange
    from fedsite.protocol.exchange_medium import write_parcel

    found = exchange.pack_answers(settings.state_directory(), lambda data: write_parcel(file, data))
    value = {
        "schema": EXPORTED,
        "file": None if found.data is None else str(file),
        "bytes": 0 if found.data is None else len(found.data),
        "sequence": found.sequence,
        "messages": [carried_answers.summary(item) for item in found.answers],
    }
    if json:
        output.emit(value, True)
    elif found.data is None:
        output.say("no answer waits; no file was written")
    else:
        output.emit(value["messages"], False)
        output.say(f"carry {file} ({len(found.data)} bytes) to the central team")


def _words(header: Header) -> str:
    return f"{header.kind} of run {header.run_id}, round {header.round}"


def _row(item: Done) -> dict[str, object]:
    header = item.header
    return {
        "run_id": header.run_id,
        "kind": header.kind,
        "round": header.round,
        "state": item.state,
        "outcome": item.outcome or None,
        "code": None if item.code is None else str(item.code),
    }
