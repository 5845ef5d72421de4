"""`fedsite simulate task=… [key=value …] [-m] [--json] [--out DIR]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def simulate(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="What `launch` takes (task=NAME, strategy=NAME, privacy=…, rounds.count=N, seed=S …) and "
            "simulation=default|quick|cross_device, simulation.sites, .cohort, .workers, .executor, .device, .engine, "
            ".partition.kind=natural|iid|dirichlet|shards|quantity, .partition.alpha, .shift, .drift, .fleet, .attack, "
            ".audit, .baselines; data.path=FILE. All of them: docs/simulation.md.",
        ),
    ] = None,
    many: Annotated[
        bool, typer.Option("-m", "--multirun", help="Several values of a key: key=a,b key=range(0,5) key=glob(*).")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the results.", metavar="DIR")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Simulate the run that `launch` would start: how good, how private, how long, how many bytes."""
    from rich.console import Console

    from fedsite.protocol import output
    from fedsite.protocol.errors import ExitCode
    from fedsite.simulations.sweeps import campaign
    from fedsite.simulations.sweeps.board import Board

    console = Console(stderr=True)
    if not console.is_terminal:
        console.width = 160
    asked = campaign.read(list(overrides or []), many=many, out=out)
    board = Board(console)
    try:
        with board.shown():
            known = campaign.run(asked, board)
    except KeyboardInterrupt:
        output.say(f"what is finished is kept in {asked.folder}; the same command goes on from there")
        raise
    done = list(campaign.found(asked.folder, known))
    failed = [cell for cell in known.cells if cell.state == "failed"]
    if as_json:
        output.emit(_document(known, done, many), True)
    else:
        _tell(console, asked.folder, known, done, many)
    for cell in failed:
        said = cell.failure
        output.say(f"failed: {campaign.name(known, cell)}: {said.found if said else ''}")
    if failed:
        raise typer.Exit(int(ExitCode.INTERNAL))


def _document(known: Any, done: list[Any], many: bool) -> dict[str, Any]:
    from fedsite.protocol import shape
    from fedsite.simulations.runs import results

    if not many:
        return results.value(done[0][1])
    by_key = {cell.key: results.value(result) for cell, result in done}
    plain: dict[str, Any] = shape.plain(known)
    for cell in plain["cells"]:
        cell["simulation"] = by_key.get(cell["key"])
    return {**plain, "schema": "fedsite.simulated-sweep/1"}


def _tell(console: Any, folder: Path, known: Any, done: list[Any], many: bool) -> None:
    from fedsite.simulations.runs import words

    if not many and done:
        for line in words.verdict(done[0][1]):
            console.print(line, highlight=False)
    elif done:
        console.print(words.table(known, done), highlight=False)
    print(folder)
