"""`fedsite runs`: list, show, watch, stop. They read the run's files; only `stop` needs the server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsite.protocol import output

if TYPE_CHECKING:
    from fedsite.server.home import ServerHome
    from fedsite.server.runs.folder import RunDirectory

LIST_SCHEMA = "fedsite.runs/1"
RUN_SCHEMA = "fedsite.run/1"
# What a site says that is asked again.
_LATER = {
    "approval": "waits for its operator (approval) and is asked again",
    "not-now": "takes no work now (not-now) and is asked again",
}
STOP_S = 20.0  # a driver has this long to end its run when asked, seconds
CHECK_S = 5.0  # between looks whether a silent run is still driven, seconds

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, its beginning, or `latest`.")]


def register(runs_app: typer.Typer) -> None:
    """Add the commands to `fedsite runs`."""
    runs_app.command("list")(list_runs)
    runs_app.command("show")(show)
    runs_app.command("watch")(watch)
    runs_app.command("stop")(stop)


def list_runs(json: Json = False) -> None:
    """List the runs of this server, oldest first."""
    from fedsite.protocol import shape
    from fedsite.server.home import ServerHome
    from fedsite.server.runs import folder as runs

    found = [shape.plain(run.summary()) for run in runs.all_runs(ServerHome.default().runs)]
    if json:
        output.emit({"schema": LIST_SCHEMA, "runs": found}, True)
    elif found:
        output.emit([_row(one) for one in found], False)
    else:
        output.say("no runs yet; next: fedsite launch task=pump privacy=sample")


def show(name: Name = "latest", json: Json = False) -> None:
    """Show one run: where it stands, its result, and the paths of its files."""
    from fedsite.protocol import shape
    from fedsite.server.home import ServerHome

    run = _find(ServerHome.default(), name)
    summary = shape.plain(run.summary())
    result = run.result()
    if json:
        output.emit({"schema": RUN_SCHEMA, **summary, "files": run.files(), "result": result}, True)
        return
    shown = {**summary, "files": run.files()}
    if result is not None:
        shown |= {"rounds": [_short(found) for found in result["rounds"]], "sites": [_site(s) for s in result["sites"]]}
        shown |= {"privacy": result["privacy"], "release": result["release"]}
    output.emit(shown, False)


def watch(name: Name = "latest", json: Json = False) -> None:
    """Follow a run until it ends: one JSON line per event (`fedsite.event/1`) with --json."""
    from fedsite.server.home import ServerHome

    home = ServerHome.default()
    follow(home, _find(home, name), json)


def stop(name: Name, json: Json = False) -> None:
    """End a run now. Its checkpoints stay; sites get back what they had set aside. Already over is not an error."""
    from fedsite.protocol import shape, storage
    from fedsite.server.home import ServerHome
    from fedsite.server.link.admin_client import AdminClient
    from fedsite.server.runs import ending

    home = ServerHome.default()
    run = _find(home, name)
    if not ending.over(run):
        storage.write_atomic(run.stop_file, b"")
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(AdminClient(home)) if home.running.exists() else None
            until = time.monotonic() + STOP_S
            while not ending.over(run) and time.monotonic() < until:
                if client is None or not ending.driven(run, client):
                    break
                time.sleep(0.1)
            if not ending.over(run) and client is not None:
                for item in client.runs():
                    if item["run_id"] == run.run_id:
                        client.stop_run(item["flower_run_id"])
        if not ending.over(run):
            ending.close(run, "stopped", "the run was stopped; nobody drove it any more")
    summary = shape.plain(run.summary())
    output.emit({"schema": RUN_SCHEMA, **summary} if json else summary, json)


def follow(home: ServerHome, run: RunDirectory, as_json: bool) -> None:
    """Print a run's events until it ends.

    Raises:
        FedsiteError: the run failed, or nobody drives it any more.
    """
    from fedsite.protocol.errors import FedsiteError
    from fedsite.server.runs.journal import Reader

    waited = 0.0

    def wait(seconds: float) -> None:
        nonlocal waited
        time.sleep(seconds)
        waited += seconds
        if waited >= CHECK_S:
            waited = 0.0
            _check_driven(home, run)

    last: dict[str, Any] = {}
    for event in Reader(run.journal_file).follow(wait):
        waited, last = 0.0, event
        if as_json:
            output.emit(event, True)
        elif (text := line(event)) is not None:
            print(text, flush=True)
    if last.get("outcome") == "failed":
        raise FedsiteError(f"run {run.run_id} failed: {last['reason']}", next_step=f"fedsite runs show {run.run_id}")


def line(event: Mapping[str, Any]) -> str | None:
    """One event for people; None for those that only programs want."""
    kind = event["kind"]
    if kind == "prepared":
        count = len(event["accepted"])
        told = [f"{count} site{'s' if count != 1 else ''} accepted the plan"] if count or not event["refused"] else []
        told += [f"{name} {_LATER.get(code, f'refused: {code}')}" for name, code in event["refused"].items()]
        return "; ".join(told)
    if kind == "waiting":
        rest = "".join(f"; {name}: {code}" for name, code in event["resting"].items())
        return f"{event['ready']} of {event['wanted']} sites ready; waiting up to {event['seconds']:g} s for more{rest}"
    if kind == "round_finished":
        size = (event["bytes_up"] + event["bytes_down"]) / 1000
        text = f"round {event['round']}: {event['outcome']}, {event['participants']} of {event['asked']} sites"
        reason = "" if event["outcome"] == "completed" else f" ({event['reason']})"
        return f"{text}, {event['seconds']:.2f} s, {size:.0f} kB{reason}"
    if kind == "evaluated" and event["metric"] is not None:
        return f"round {event['round']}: metric {event['metric']:.4g}"
    if kind == "released":
        return f"release {event['version']}: int8 {event['bytes']} bytes, fp32 {event['fp32_bytes']} bytes"
    if kind == "release_refused":
        return f"no release: {event['reason']}"
    if kind == "installed":
        failed = "".join(f"; {name}: {why}" for name, why in event["failed"].items())
        return f"installed and verified at {len(event['verified'])} sites{failed}"
    if kind == "finished":
        return f"{event['outcome']}: {event['reason']} ({event['seconds']:.1f} s)"
    return None


def _find(home: ServerHome, name: str) -> RunDirectory:
    from fedsite.server.runs import folder as runs

    home.federation()
    return runs.find(home.runs, name)


def _check_driven(home: ServerHome, run: RunDirectory) -> None:
    """Do not wait for ever for a run whose driver is gone.

    Raises:
        UnreachableError: the server is down, or Flower has no driver of this run.
    """
    from fedsite.protocol.errors import UnreachableError
    from fedsite.server.link.admin_client import AdminClient
    from fedsite.server.runs import ending

    next_step = f"fedsite server up, then: fedsite runs stop {run.run_id}"
    if not home.running.exists():
        raise UnreachableError(f"the server is not running, and run {run.run_id} is not over", next_step=next_step)
    with AdminClient(home) as client:
        if not ending.driven(run, client) and not ending.over(run):
            raise UnreachableError(
                f"nobody drives run {run.run_id} any more",
                next_step=f"look into {home.logs}, then: fedsite runs stop {run.run_id}",
            )


def _row(found: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the list; how a run that came to its end did so needs no words."""
    kept = {name: found[name] for name in ("run_id", "task", "state")}
    reason = None if found["state"] == "completed" else found["reason"]
    rounds = f"{found['round']} of {found['rounds']}"
    return {**kept, "created": found["created"][:10], "rounds": rounds, "metric": found["metric"], "reason": reason}


def _short(found: Mapping[str, Any]) -> dict[str, Any]:
    names = ("number", "outcome", "participants", "seconds", "bytes_up", "bytes_down", "metric")
    return {name: found[name] for name in names}


def _site(found: Mapping[str, Any]) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for item in found["rounds"]:
        counts[item["outcome"]] = counts.get(item["outcome"], 0) + 1
    rounds = " ".join(f"{outcome}:{count}" for outcome, count in counts.items())
    return {name: found[name] for name in ("name", "epsilon", "installed", "code")} | {"rounds": rounds}
