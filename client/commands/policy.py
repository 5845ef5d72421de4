"""`fedsite policy`: the site's own rules: a commented file to begin with, what holds now, what they say to a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import ExitCode

if TYPE_CHECKING:
    from fedsite.protocol.plan import RoundPlan

SCHEMA = "fedsite.policy/1"
TESTED = "fedsite.policy-test/1"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="This site's own rules: init, show, test.")
    for name, command in (("init", init), ("show", show), ("test", would_do)):
        group.command(name)(command)
    app.add_typer(group, name="policy", rich_help_panel="Site operator")


def init(json: Json = False) -> None:
    """Write a commented site.yaml with every setting in it; one that is there is never touched."""
    from fedsite.client import settings, settings_template
    from fedsite.protocol.storage import private_directory, write_atomic

    directory = settings.state_directory()
    path = directory / settings.FILE
    already = path.exists()
    if not already:
        private_directory(directory)
        write_atomic(path, settings_template.TEXT.encode("utf-8"))
    value = {"schema": "fedsite.policy-file/1", "path": str(path), "already": already}
    output.emit(value if json else [str(path)], json)
    if not json:
        output.say("it was there already and is as it was" if already else "next: edit it; fedsite policy show")


def show(json: Json = False) -> None:
    """Show the rules that hold now, and whether work may begin at this moment."""
    from fedsite.client import settings
    from fedsite.client.consent import conditions, host_facts, hours
    from fedsite.protocol import instants, shape

    file = settings.SettingsFile(settings.state_directory())
    chosen = file.current()
    facts = host_facts.read(chosen)
    opens = hours.opening(chosen.policy.hours, facts.local_time)
    value = {
        "schema": SCHEMA,
        "site_yaml": file.digest,
        "policy": shape.plain(chosen.policy),
        "now": conditions.reasons(chosen.policy, facts),
        "opens": None if opens is None else instants.text(host_facts.at_this_place(opens)),
        "unknown": [finding.code for finding in conditions.unknown(chosen.policy, facts)],
    }
    if json:
        output.emit(value, True)
        return
    output.emit(value["policy"], False)
    for finding in conditions.unknown(chosen.policy, facts):
        output.say(f"warning: {finding.text}; next: {finding.remedy}")
    output.say("not now: " + "; ".join(value["now"]) if value["now"] else "work may begin now")


def would_do(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN.json", help="What fedsite launch … --plan --json prints, or a plan itself.")
    ],
    json: Json = False,
) -> None:
    """Say what would happen if this plan came, and every reason; ends with 6 when it would be refused."""
    from fedsite.client import settings
    from fedsite.client.commands.rounds import priced
    from fedsite.client.consent import approvals, conditions, host_facts, pause, policy

    found = read_plan(plan)
    directory = settings.state_directory()
    chosen = settings.load(directory)
    source, quotes, refused = priced(directory, chosen, found)
    refused = _foreign(found, directory) + refused
    mode = chosen.policy.approval
    paused = pause.why_not(directory)
    later = ([paused] if paused else []) + conditions.reasons(chosen.policy, host_facts.read(chosen))
    asks = _asks(found, approvals.Approvals(directory / approvals.FOLDER), mode)
    if asks is not None and asks["code"] == "policy":
        refused.append(asks)
    would = "refuse" if refused else "ask a person" if asks else "wait" if later else "accept"
    value = {
        "schema": TESTED,
        "run_id": found.run_id,
        "task": found.task_name,
        "plan_hash": found.hash,
        "recipe": found.recipe,
        "task_entry": policy.task_entry(found),
        "would": would,
        "refused": refused,
        "approval": {"mode": mode, "asks": asks is not None},
        "not_now": later,
        "source": source,
        "price": [one.plain() for one in quotes],
    }
    output.emit(value if json else _text(value), json)
    if refused:
        raise typer.Exit(int(ExitCode.POLICY))


def read_plan(path: Path) -> RoundPlan:
    """A plan from a file: bare, or as `plan` in what `fedsite launch --plan --json` prints.

    Raises:
        DocumentError, StorageError: there is none in it.
    """
    from fedsite.protocol import documents, shape, storage
    from fedsite.protocol.errors import ConfigError, DocumentError
    from fedsite.protocol.plan import CONTROLLED, SCHEMA, RoundPlan

    try:
        value: Any = documents.parse(storage.read(path))
        inner = value.get("plan", value) if isinstance(value, dict) else value
        if not isinstance(inner, dict) or inner.get("schema") not in (SCHEMA, CONTROLLED):
            raise DocumentError("it holds no plan", allowed=f"a document with schema {SCHEMA} or {CONTROLLED}")
        return shape.read(RoundPlan, inner)
    except ConfigError as error:
        error.found = f"file {path}: {error.found}"
        error.next_step = error.next_step or "ask the central team for: fedsite launch … --plan --json > plan.json"
        raise


def _asks(plan: RoundPlan, store: Any, mode: Any) -> dict[str, str] | None:
    """Why a person would have to decide, or has decided against it; None where nobody has to."""
    from fedsite.client.consent import approvals
    from fedsite.client.refusals import plain
    from fedsite.protocol.errors import PolicyError

    try:
        approvals.check(plan, mode, store)
    except PolicyError as error:
        return plain(error)
    return None


def _foreign(plan: RoundPlan, directory: Path) -> list[dict[str, str]]:
    """Why the agent would not take the plan from its own centre: it was made for another federation."""
    from fedsite.client.identity import site
    from fedsite.client.refusals import plain
    from fedsite.protocol.errors import DocumentError, RefusalCode

    own = site.load_federation(directory).id if site.joined(directory) else plan.federation
    if plan.federation == own:
        return []
    error = DocumentError(
        f"a plan of federation {plan.federation}",
        allowed=own,
        next_step="ask for one that is made where this site's server is: fedsite launch … --plan --json",
        refusal=RefusalCode.WRONG_RUN,
    )
    return [plain(error)]


def _text(value: dict[str, Any]) -> list[str]:
    words = {
        "refuse": "this site would refuse it",
        "ask a person": "this site would ask a person (fedsite rounds show)",
        "wait": "this site would take part later",
        "accept": "this site would take part",
    }
    lines = [f"{value['task']} (run {value['run_id']}): {words[value['would']]}"]
    for reason in value["refused"]:
        lines += output.fold(f"{reason['code']}: {reason['found']}", first="  ", then="    ")
        for name in ("allowed", "next"):
            lines += output.fold(f"{name}: {reason[name]}", first="    ", then="      ") if reason[name] else []
    lines += [part for reason in value["not_now"] for part in output.fold(reason, first="  not now: ", then="    ")]
    for one in value["price"]:
        after = output.epsilon(one["epsilon_after"])
        lines.append(
            f"  ε {output.epsilon(one['epsilon'])} per {one['unit']}; {after} of {one['epsilon_max']:g} spent after it"
        )
    if not any(value["task_entry"] in reason["found"] for reason in value["refused"]):
        lines += ["  in policy.tasks, this task document and no other of its name:", f"    {value['task_entry']}"]
    return lines
