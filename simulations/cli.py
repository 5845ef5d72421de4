"""The researcher's commands; they join `fedsite` by entry point."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

PANEL = "Researcher"


def register(app: typer.Typer) -> None:
    """Add `demo`, `simulate` and `report`."""
    from fedsite.simulations.sweeps.command import simulate

    app.command("demo", rich_help_panel=PANEL)(demo)
    app.command("simulate", rich_help_panel=PANEL)(simulate)
    app.command("report", rich_help_panel=PANEL)(report)


def demo(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="task=NAME task_file=FILE data.path=FILE sites=N seed=S out=DIR keep=true, and what `launch` takes: "
            "privacy=sample|site|both|none protection=secagg|sealed|none privacy.epsilon=8 rounds.count=N …",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON document.")] = False,
) -> None:
    """Run a whole federation on this machine and write runs/demo/report.html."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from fedsite.protocol import documents, output
    from fedsite.simulations.demo import compare, page, story
    from fedsite.simulations.demo import report as reports

    # Ended politely it stops what it started, as on Ctrl-C; under nohup it goes on.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    arguments = list(overrides or [])
    console = Console(stderr=True)
    options = story.read(arguments)
    played = story.play(options, console)
    with Progress(TextColumn("{task.description}"), BarColumn(), console=console, transient=True) as bar:
        line = bar.add_task("baselines: training central and local-only models", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(line, description=f"baselines: {what}", completed=done, total=total)

        command = " ".join(["fedsite demo", *arguments])
        value = compare.report(options, played, command, tell)
    written = page.save(value, options.out)
    if as_json:
        output.emit(documents.parse(reports.encode(value)), True)
        return
    console.print(page.verdict(value))
    if value.privacy.epsilon_max is not None:
        claim = f"ε = {output.epsilon(value.privacy.epsilon_max)} per {value.privacy.unit}"
        console.print(f"privacy: {claim}, δ = {value.privacy.delta:g}")
    if (sums := value.privacy.site) is not None:
        console.print(f"privacy in the sums: ε = {output.epsilon(sums.epsilon)} per site, δ = {sums.delta:g}")
    if value.privacy.epsilon_max is None and sums is None:
        console.print("privacy: none; this run makes no claim")
    if value.release_refused:
        console.print(f"no release: {value.release_refused}")
    console.print(f"federation: {value.seconds:.0f} s")
    print(written)
    if value.outcome != "completed":
        raise typer.Exit(1)


def report(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE",
            help="A folder that `fedsite simulate` or `fedsite demo` wrote, or a report.json of the demo's.",
        ),
    ],
) -> None:
    """Write report.html beside what a simulation, a sweep or the demo left."""
    from fedsite.simulations.pages import page as simulation_page
    from fedsite.simulations.sweeps import manifest

    if place.is_dir() and not (place / "report.json").exists():
        print(simulation_page.save(place))
    elif place.name in (manifest.NAME, manifest.RESULT):
        print(simulation_page.save(place.parent))
    else:
        print(_demo_page(place / "report.json" if place.is_dir() else place))


def _demo_page(file: Path) -> Path:
    from fedsite.protocol import storage
    from fedsite.protocol.errors import ConfigError, DocumentError, StorageError
    from fedsite.simulations.demo import page
    from fedsite.simulations.demo import report as reports

    try:
        value = reports.decode(storage.read(file, limit=64 << 20).strip())
    except (StorageError, DocumentError) as error:
        raise ConfigError(
            f"report {file}: {error.found}",
            allowed="a report.json that fedsite demo wrote, or a folder that fedsite simulate wrote",
            next_step="fedsite simulate, or fedsite demo",
        ) from None
    target = file.with_suffix(".html")
    storage.write_atomic(target, page.render(value).encode(), mode=0o644)
    return target
