"""`fedsite rounds`: the runs this site was asked for, what each would cost or came to, and a person's yes or no."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import ConfigError, PolicyError

if TYPE_CHECKING:
    from fedsite.client.consent.approvals import Known
    from fedsite.client.settings import Settings
    from fedsite.protocol.plan import RoundPlan

DECIDED = "fedsite.decided/1"
_SHOWN = ("run", "state", "task", "rounds", "bytes", "took", "epsilon", "asked")
_SHORT = 12  # characters of a run's id that tell it from the others: its first ten are the time

Run = Annotated[str, typer.Argument(metavar="RUN", help="Its id, or the beginning of it; or latest.")]
Read = Annotated[str, typer.Argument(metavar="RUN", help="Its id as its card tells it, or the beginning of it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Runs this site was asked for: list, show, approve, reject.")
    group.callback(invoke_without_command=True)(_default)
    for name, command in (("list", _list), ("show", show), ("approve", approve), ("reject", reject)):
        group.command(name)(command)
    app.add_typer(group, name="rounds", rich_help_panel="Site operator")


def _default(context: typer.Context, json: Json = False) -> None:
    """List the runs this site was asked for, with what each cost."""
    if context.invoked_subcommand is None:
        _list(json)


def _list(json: Json = False) -> None:
    """List the runs this site was asked for, with what each cost."""
    from fedsite.client import settings
    from fedsite.client.consent import history

    value = history.value(settings.state_directory())
    if json:
        output.emit(value, True)
        return
    ids = [run["run_id"] for run in value["rounds"]]
    length = _SHORT if len({run_id[:_SHORT] for run_id in ids}) == len(ids) else None
    rows: list[Any] = [_row(run, length) for run in value["rounds"]]
    output.emit(rows or ["no run was ever asked for"], False)
    waiting = [run["run_id"] for run in value["rounds"] if run["state"] == "waiting"]
    if waiting:
        output.say(f"next: fedsite rounds show {waiting[-1]}")


def show(run: Run = "latest", json: Json = False) -> None:
    """Show the card of a run: what is new, the data it reads, bytes, minutes, ε and the balance after."""
    from fedsite.client import settings
    from fedsite.client.consent import card, history

    directory = settings.state_directory()
    made = _card(directory, settings.load(directory), history.find(directory, run))
    output.emit(made if json else card.text(made), json)


def approve(run: Read, json: Json = False) -> None:
    """Agree to a run: this plan and, with policy.approval once, every later run that is launched the same way."""
    _decide(run, "approved", json)


def reject(run: Run, json: Json = False) -> None:
    """Say no to a run, also in the middle of it: nothing more of it is answered with data."""
    _decide(run, "rejected", json)


def _decide(word: str, verdict: Literal["approved", "rejected"], json: bool) -> None:
    from fedsite.client import settings
    from fedsite.client.audit import log as audit_log
    from fedsite.client.consent import approvals, gate, history
    from fedsite.client.identity import site
    from fedsite.client.refusals import plain
    from fedsite.protocol import instants

    directory = settings.state_directory()
    known = history.find(directory, word)
    if verdict == "approved" and word == "latest":
        raise ConfigError(
            "approve latest",
            allowed="the id of the run whose card was read: a later one may have come since",
            next_step="fedsite rounds show",
        )
    rules = settings.load(directory).policy
    reasons = [plain(reason) for reason in gate.objections(known.plan, rules)]
    if verdict == "approved" and reasons:
        # A yes that changes nothing would only look like one.
        raise PolicyError(reasons[0]["found"], allowed=reasons[0]["allowed"], next_step=reasons[0]["next"])
    store = approvals.Approvals(directory / approvals.FOLDER)
    by, now = site.person(), instants.text(instants.now())
    facts = {"run_id": known.plan.run_id, "plan": known.plan.hash, "recipe": known.plan.recipe, "by": by}
    if verdict == "rejected":
        store.decide(known.plan, verdict, by=by, now=now)
        audit_log.record(directory, verdict, facts)
    else:
        audit_log.record(directory, verdict, facts)
        store.decide(known.plan, verdict, by=by, now=now)
    value = {"schema": DECIDED, "verdict": verdict, **facts, "at": now, "ended": known.ended}
    output.emit(value if json else [f"{verdict}: run {known.plan.run_id} of {known.plan.task_name}"], json)
    if not json:
        output.say(_then(known, verdict, rules.approval))


def _then(known: Known, verdict: str, mode: str) -> str:
    """What comes of it."""
    if known.ended is not None:
        later = "the next run asks again"
        if mode == "automatic":
            later = "the next run asks nobody (policy.approval is automatic)"
        elif mode == "once" and verdict == "approved":
            later = "the next run launched like it needs no decision"
        return f"this run is over; {later}"
    if verdict == "approved":
        return "the agent takes part as soon as it is asked again, within a minute or two"
    return "the agent refuses whatever else this run asks for"


def _card(directory: Path, chosen: Settings, known: Known) -> dict[str, Any]:
    """A run's card, with where it stands and what the rules say."""
    from fedsite.client.consent import approvals, card, history

    store = approvals.Approvals(directory / approvals.FOLDER)
    decision = store.decision(known.plan.hash)
    source, prices, refused = priced(directory, chosen, known.plan)
    made = card.make(
        known.plan,
        previous=history.previous(directory, known.plan),
        source=source,
        known=_measured(directory, known.plan),
        quotes=prices,
    )
    decided = None if decision is None else {name: getattr(decision, name) for name in ("verdict", "by", "at")}
    facts = {"state": history.state(known, decision), "asked": known.asked, "decided": decided, "refused": refused}
    return {**made, **facts}


def _measured(directory: Path, plan: RoundPlan) -> dict[str, Any]:
    """What is known of the task's data without reading it: from the last `fedsite data check` that was called right."""
    from fedsite.client import reference
    from fedsite.protocol.errors import FedsiteError
    from fedsite.telemetry.errors import TelemetryError
    from fedsite.telemetry.task import read_task

    try:
        found = reference.load(directory, read_task(plan.task))
    except (FedsiteError, TelemetryError):
        found = None
    return {
        "readings": None if found is None else found.summary.rows,
        "checked": None if found is None else found.taken,
    }


def priced(directory: Path, chosen: Settings, plan: RoundPlan) -> tuple[str, list[Any], list[dict[str, str]]]:
    """The source a plan would read here, what it costs each unit, and every reason to refuse it."""
    from fedsite.client import data, state_directory
    from fedsite.client.consent import gate
    from fedsite.client.ledger import quote
    from fedsite.client.refusals import plain
    from fedsite.telemetry.errors import TelemetryError
    from fedsite.telemetry.task import read_task

    reasons = gate.objections(plan, chosen.policy)
    source = ""
    try:
        task = read_task(plan.task)
        source = data.source_id(task, data.location(chosen, task))
    except TelemetryError as error:
        reasons += [] if str(error) in map(str, reasons) else [error]
    quotes = quote.quotes(plan, chosen.policy, directory / state_directory.BUDGET, source) if source else []
    # A cap that the plan's own claim is above already is not told twice.
    told = {str(getattr(reason, "allowed", "")) for reason in reasons}
    reasons += [reason for one in quotes for reason in one.refused if reason.allowed not in told]
    return source, quotes, [plain(reason) for reason in reasons]


def _row(run: dict[str, Any], length: int | None) -> dict[str, Any]:
    """One line of the list; of the run's id as much as tells it from the others."""
    prices = [f"{output.epsilon(one['epsilon_reserved'])}/{one['unit']}" for one in run["price"]
              if one["epsilon_reserved"] is not None]  # fmt: skip
    found = {
        **run,
        "run": run["run_id"][:length],
        "rounds": f"{run['rounds']} of {'?' if run['of'] is None else run['of']}",
        "bytes": _size(run["bytes_down"] + run["bytes_up"]),
        "took": f"{run['seconds']:.0f} s",
        "epsilon": ", ".join(prices) or None,
        "asked": run["asked"][:10],
    }
    return {name: found[name] for name in _SHOWN}


def _size(count: int) -> str:
    return f"{count / 1e6:.3g} MB" if count >= 1_000_000 else f"{count / 1e3:.3g} kB"
