"""Administration over loopback HTTP: the commands change sites and runs through the one process that writes them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fedsite.protocol import documents, instants
from fedsite.protocol.enrolment import refusal
from fedsite.protocol.errors import ConfigError, FedsiteError
from fedsite.server.audit_log import Append, nowhere, told
from fedsite.server.link import flower_control
from fedsite.server.sites.fleet import Fleet
from fedsite.server.sites.view import check_labels, site_view

if TYPE_CHECKING:
    from fedsite.server.link.flower_control import Nodes


def admin_app(
    fleet: Fleet,
    nodes: Nodes,
    *,
    retire: Callable[[str], None],
    admit: Callable[[bytes], bytes],
    clock: Callable[[], datetime],
    audit: Append = nowhere,
) -> Starlette:
    """The routes below `/admin/`; the guard has checked the secret.

    Args:
        fleet: the sites.
        nodes: Flower's.
        retire: ends a node by its id.
        admit: answers an enrolment that came as a file (Enrolment.admit).
        clock: UTC.
        audit: told of every change, before that holds.
    """

    def sites(_request: Request, _body: Any) -> Any:
        online = nodes.online()
        return [site_view(site, online) for site in fleet.sites()]

    def show(request: Request, _body: Any) -> Any:
        return site_view(fleet.find(request.path_params["name"]), nodes.online())

    def revoke(request: Request, _body: Any) -> Any:
        site = fleet.find(request.path_params["name"])
        with told(audit, "revoked", {"site_id": site.site_id, "name": site.name}):
            fleet.revoke(site.site_id, instants.text(clock()))
            retire(site.node_id)
        return site_view(fleet.find(site.site_id), nodes.online())

    def label(request: Request, body: Any) -> Any:
        site = fleet.find(request.path_params["name"])
        labels = check_labels(body)
        with told(audit, "labelled", {"site_id": site.site_id, "name": site.name, "labels": dict(labels)}):
            fleet.label(site.site_id, labels)
        return site_view(fleet.find(site.site_id), nodes.online())

    def carry(request: Request, body: Any) -> Any:
        site = fleet.find(request.path_params["name"])
        carried = body.get("carried") if isinstance(body, dict) else None
        if not isinstance(carried, bool):
            raise ConfigError("nothing says whether the site is carried", allowed='{"carried": true or false}')
        with told(audit, "carried", {"site_id": site.site_id, "name": site.name, "carried": carried}):
            fleet.carry(site.site_id, carried)
        return site_view(fleet.find(site.site_id), nodes.online())

    def enrol(_request: Request, body: Any) -> Any:
        return json.loads(admit(documents.canonical(body)))

    def start(_request: Request, body: Any) -> Any:
        if not isinstance(body, dict) or not isinstance(body.get("run_id"), str):
            raise ConfigError("no run_id", allowed='{"run_id": ULID, "epoch": number}')
        epoch = body.get("epoch", 1)
        if not isinstance(epoch, int) or epoch < 1:
            raise ConfigError(f"epoch is {epoch!r}", allowed="a number from 1")
        with told(audit, "launched" if epoch == 1 else "resumed", {"run_id": body["run_id"], "epoch": epoch}):
            return {"flower_run_id": flower_control.start_run(nodes.state, run_id=body["run_id"], epoch=epoch)}

    def runs(_request: Request, _body: Any) -> Any:
        return [dataclasses.asdict(run) for run in flower_control.list_runs(nodes.state)]

    def stop(request: Request, _body: Any) -> Any:
        run = request.path_params["run"]
        with told(audit, "stopped", {"flower_run_id": run}):
            return {"stopped": flower_control.stop_run(nodes.state, run)}

    def status(_request: Request, _body: Any) -> Any:
        return {"online": sorted(nodes.online()), "sites": len([s for s in fleet.sites() if s.revoked is None])}

    table: list[tuple[str, str, Callable[[Request, Any], Any]]] = [
        ("GET", "/admin/sites", sites),
        ("GET", "/admin/sites/{name}", show),
        ("POST", "/admin/sites/{name}/revoke", revoke),
        ("POST", "/admin/sites/{name}/labels", label),
        ("POST", "/admin/sites/{name}/carried", carry),
        ("POST", "/admin/enrolments", enrol),
        ("GET", "/admin/runs", runs),
        ("POST", "/admin/runs", start),
        ("POST", "/admin/runs/{run}/stop", stop),
        ("GET", "/admin/status", status),
    ]
    return Starlette(routes=[Route(path, _answering(handler), methods=[method]) for method, path, handler in table])


def _answering(handler: Callable[[Request, Any], Any]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        data = await request.body()
        try:
            body = documents.parse(data) if data else None
            return JSONResponse(json.loads(json.dumps(await run_in_threadpool(handler, request, body))))
        except FedsiteError as error:
            return Response(refusal(error), status_code=400, media_type="application/json")

    return answer
