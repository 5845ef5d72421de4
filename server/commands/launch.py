"""`fedsite launch task=… [key=value …]`: plan a run, journal it, and start it on the running server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsite.protocol import output

if TYPE_CHECKING:
    from fedsite.server.home import ServerHome
    from fedsite.server.plans.planning import Planned
    from fedsite.server.runs.folder import RunDirectory

SCHEMA = "fedsite.launched/1"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("launch", rich_help_panel="Central team")(launch)


def launch(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="task=NAME or task_file=FILE; privacy=sample|site|both|none; privacy.epsilon, .delta, .unit, .clip, "
            ".batch, .site.epsilon; protection=secagg|sealed|none, protection.groups, .terms.min_cohort; "
            "strategy=NAME; rounds.count, .minimum, .goal, .deadline_s, .wait_s, .patience; local.steps, "
            ".sampling_rate, .optimizer, .learning_rate; model.name, .options.KEY, .init=FILE, .trainable=head; "
            "release=int8|none, release.parity; experiment=NAME; seed=S. All of them: docs/rounds.md.",
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what it will cost each site, and run nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--detach", help="Follow the run, or leave it to the server.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Launch a federated run on the sites that are online."""
    from fedsite.server import settings
    from fedsite.server.home import ServerHome
    from fedsite.server.link.admin_client import AdminClient
    from fedsite.server.plans import planning
    from fedsite.server.runs.folder import RunDirectory

    home = ServerHome.default()
    typed = list(overrides or [])
    asked = settings.compose(typed)
    if plan:
        federation = home.federation().id if home.exists else "0" * 32
        planned = planning.make(asked, federation, sites=_enrolled(home) or None)
        # The plan as a site would get it, for `fedsite policy test`; people read the forecast.
        output.emit({**planned.forecast(), **({"plan": planned.plan.plain()} if json else {})}, json)
        return
    with AdminClient(home) as client:
        client.status()  # a server that is away is said before minutes go into planning
        planned = planning.make(asked, home.federation().id, sites=_enrolled(home))
        _leave_out(home, planned)
        run = RunDirectory(home.runs / planned.plan.run_id)
        _start(client, run, planned, typed)
    try:
        _tell(home, run, planned, json, wait)
        if wait:
            from fedsite.server.commands.runs import follow

            follow(home, run, json)
    except KeyboardInterrupt:
        output.say(f"the run goes on; fedsite runs watch {run.run_id}, or: fedsite runs stop {run.run_id}")
        raise


def _enrolled(home: ServerHome) -> int | None:
    """Sites that are not revoked; None where no server has ever run."""
    from fedsite.server.sites.fleet_file import read_sites

    if not home.database.exists():
        return None
    return sum(site.revoked is None for site in read_sites(home.database))


def _leave_out(home: ServerHome, planned: Planned) -> None:
    """Say which sites a run leaves out because people carry their messages."""
    from fedsite.server.plans import feasible
    from fedsite.server.sites.fleet_file import read_sites

    sites = [site for site in read_sites(home.database) if site.revoked is None] if home.database.exists() else []
    carried = [site.name for site in sites if site.carried]
    left = feasible.check_carried(planned.plan, len(sites) - len(carried), carried)
    if left:
        output.say(
            f"left out: {', '.join(left)}; a secure sum is several trips within minutes, and their messages are "
            "carried: protection=sealed takes them in"
        )


def _start(client: Any, run: RunDirectory, planned: Planned, typed: list[str]) -> None:
    """Journal first, then start: a run that Flower did not take has a result that says so."""
    from fedsite.protocol.errors import FedsiteError
    from fedsite.server.runs import ending
    from fedsite.server.runs.folder import Launch

    run.create(planned.plan, planned.initial, Launch(trained=planned.trained, overrides=tuple(typed)))
    run.offer(1)
    try:
        client.start_run(run.run_id, 1)
    except FedsiteError as error:
        ending.close(run, "failed", f"not started: {error.found}")
        raise


def _tell(home: ServerHome, run: RunDirectory, planned: Planned, as_json: bool, wait: bool) -> None:
    forecast = planned.forecast()
    if as_json:
        value = {"schema": SCHEMA, "run_id": run.run_id, "directory": str(run.path), "forecast": forecast}
        if not wait:
            output.emit(value, True)
        return
    claims = _claims(planned)
    text = f"{forecast['rounds']} rounds of {forecast['task']}, {claims or 'no privacy'}"
    output.say(f"run {run.run_id}: {text}, protection {forecast['protection']}")
    if not claims:
        output.say("a site takes part in a run without privacy only where policy.require_privacy is false")
    if not wait:
        print(run.run_id)
        output.say(f"next: fedsite runs watch {run.run_id}")


def _claims(planned: Planned) -> str:
    """What the run promises whom; two claims are two, and never one sum."""
    cost, unit = planned.plan.cost, planned.plan.privacy.unit
    own = None if cost.epsilon is None else f"epsilon {output.epsilon(cost.epsilon)} per {unit} at each site"
    sums = None if cost.site_epsilon is None else f"epsilon {output.epsilon(cost.site_epsilon)} per site in the sums"
    return " and, apart from it, ".join(claim for claim in (own, sums) if claim is not None)
