"""The hot routes of Flower's fleet and runtime APIs, served without the ten layers of middleware in front of them.

Same wire format, same handlers, same authentication, same error bodies: only the way there is short. A call through
Flower's own stack costs about three times the processor time of its handler, and a round is made of dozens of calls.
A site's `pull-object` waits a moment for an object that is announced but on its way (arrivals.py): Flower's clients
sleep a second then. Its `pull-messages` may be held until there is something to pull (held.py).
Calls take turns: nearly every one writes to Flower's database, which has one writer; in SQLite those who wait sleep,
and fail in the end.
Everything else goes through Flower's stack. Of a site, only replies to what it was asked are taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import anyio
from starlette.requests import Request
from starlette.responses import Response

from fedsite.server.link.arrivals import Arrivals
from fedsite.server.link.guarded import Receive, Scope, Send
from fedsite.server.link.held import WAIT_HEADER, HeldPulls, wanted_wait

if TYPE_CHECKING:
    from fastapi import FastAPI

OBJECT_WAIT_S = 2.0  # longest wait for an announced object

_FLEET = "/v1/fleet/"
_RUNTIME = "/v1/runtime/"
_FLEET_PULL = _FLEET + "pull-messages"
_FLEET_PUSH = _FLEET + "push-messages"
_FLEET_PULL_OBJECT = _FLEET + "pull-object"
_RUNTIME_PUSH = _RUNTIME + "push-messages"
_RUNTIME_PUSH_OBJECT = _RUNTIME + "push-object"


@dataclass(frozen=True, slots=True)
class _Route:
    request_type: Any
    handle: Callable[[Any, Any, Request], Any]  # request, link state, http request -> protobuf response


class FlowerDispatch:
    """ASGI application in front of Flower's own."""

    def __init__(self, flower: FastAPI) -> None:
        from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
        from flwr.superlink.routers.fleet.node_auth import authenticate_node

        self._flower = flower
        self._authenticate = authenticate_node
        self._factory = flower.state.linkstate_factory
        self._media_type = PROTOBUF_MEDIA_TYPE
        self._routes = _fleet_routes() | _runtime_routes()
        self._held = HeldPulls()
        self._arrivals = Arrivals()
        self._turns = anyio.CapacityLimiter(1)
        self._loop: asyncio.AbstractEventLoop | None = None

    def wake(self, node_id: int) -> None:
        """Let a held pull of this node look again, and see that the node is gone; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._held.wake, [node_id])

    def close(self) -> None:
        """Answer every held pull; the process stops."""
        self._held.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a hot route here, pass on everything else."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        content_type = dict(scope.get("headers", ())).get(b"content-type", b"").decode("latin-1")
        if route is not None and scope["path"].startswith(_FLEET) and content_type != self._media_type:
            # Flower's stack takes other spellings of the type: a site's calls have one way in, ours.
            await Response(status_code=int(HTTPStatus.UNSUPPORTED_MEDIA_TYPE))(scope, receive, send)
            return
        if route is None or content_type != self._media_type:
            await self._flower(scope, receive, send)
            return
        from flwr.supercore.error.http import http_error_translator

        scope["app"] = self._flower
        request = Request(scope, receive)

        async def answer(_request: Request) -> Response:
            return await self._answer(route, request)

        response = await http_error_translator(request, answer)
        await response(scope, receive, send)

    async def _answer(self, route: _Route, request: Request) -> Response:
        body = await request.body()
        try:
            message = route.request_type.FromString(body)
        except Exception:
            return Response(status_code=int(HTTPStatus.BAD_REQUEST))
        request.state.protobuf_request = message
        path = request.url.path
        if path == _FLEET_PUSH and not replies_only(message):
            return Response(status_code=int(HTTPStatus.FORBIDDEN))
        if path == _FLEET_PULL:
            result = await self._pull(route, message, request)
        elif path == _FLEET_PULL_OBJECT:
            result = await self._pull_object(route, message, request)
        else:
            result = await self._call(route, message, request)
        if path == _RUNTIME_PUSH:
            self._held.wake(item.metadata.dst_node_id for item in message.messages_list)
        elif path == _RUNTIME_PUSH_OBJECT:
            self._arrivals.arrived(message.object_id)
        return Response(result.SerializeToString(deterministic=True), media_type=self._media_type)

    async def _pull(self, route: _Route, message: Any, request: Request) -> Any:
        self._loop = asyncio.get_running_loop()
        look = partial(self._call, route, message, request)

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        wait_s = wanted_wait(request.headers.get(WAIT_HEADER))
        if wait_s == 0:
            return await look()
        # Before anything is held: whoever names another site's node would let that site's pull go.
        await self._turn(partial(self._authenticate, request))
        return await self._held.until_found(
            message.node.node_id, wait_s, look, lambda answer: bool(answer.messages_list), gone
        )

    async def _pull_object(self, route: _Route, message: Any, request: Request) -> Any:
        return await self._arrivals.until_there(
            message.object_id,
            OBJECT_WAIT_S,
            partial(self._call, route, message, request),
            lambda answer: answer.object_found and not answer.object_available,
        )

    async def _call(self, route: _Route, message: Any, request: Request) -> Any:
        return await self._turn(lambda: route.handle(message, self._factory.state(), request))

    async def _turn(self, call: Callable[[], Any]) -> Any:
        return await anyio.to_thread.run_sync(call, limiter=self._turns)


def replies_only(message: Any) -> bool:
    """Whether a site's push is its own replies: Flower would take instructions to other sites, too."""
    return all(
        item.metadata.reply_to_message_id and item.metadata.src_node_id == message.node.node_id
        for item in message.messages_list
    )


def _fleet_routes() -> dict[str, _Route]:
    from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
    from flwr.superlink.routers.fleet.node_auth import authenticate_node
    from flwr.superlink.servicer.fleet import fleet_handlers

    def authenticated(handler: Callable[..., Any], *, store: bool = False) -> Callable[[Any, Any, Request], Any]:
        def handle(message: Any, state: Any, request: Request) -> Any:
            authenticate_node(request)
            if store:
                return handler(request=message, state=state, store=state.object_store)
            return handler(request=message, state=state)

        return handle

    return {
        _FLEET + "send-node-heartbeat": _Route(
            heartbeat_pb2.SendNodeHeartbeatRequest, authenticated(fleet_handlers.send_node_heartbeat)
        ),
        _FLEET + "pull-messages": _Route(
            fleet_pb2.PullMessagesRequest, authenticated(fleet_handlers.pull_messages, store=True)
        ),
        _FLEET + "push-messages": _Route(fleet_pb2.PushMessagesRequest, authenticated(fleet_handlers.push_messages)),
        _FLEET + "push-object": _Route(message_pb2.PushObjectRequest, authenticated(fleet_handlers.push_object)),
        _FLEET + "pull-object": _Route(message_pb2.PullObjectRequest, authenticated(fleet_handlers.pull_object)),
        _FLEET + "confirm-message-received": _Route(
            message_pb2.ConfirmMessageReceivedRequest,
            authenticated(fleet_handlers.confirm_message_received, store=True),
        ),
    }


def _runtime_routes() -> dict[str, _Route]:
    from flwr.proto import message_pb2, runtime_pb2
    from flwr.supercore.constant import TASK_TOKEN_HEADER
    from flwr.supercore.dependencies.task import authenticate_task
    from flwr.supercore.dependencies.version import VersionDependency
    from flwr.superlink.servicer.runtime import runtime_handlers

    check_version = VersionDependency(component_name="SuperLink", connection_name="Caller <-> SuperLink Runtime API")

    def authenticated(name: str) -> Callable[[Any, Any, Request], Any]:
        handler = getattr(runtime_handlers, name)

        def handle(message: Any, state: Any, request: Request) -> Any:
            check_version(request)
            task = authenticate_task(request, request.headers.get(TASK_TOKEN_HEADER), state)
            return handler(message, state, task)

        return handle

    return {
        _RUNTIME + "push-messages": _Route(runtime_pb2.PushAppMessagesRequest, authenticated("push_messages")),
        _RUNTIME + "pull-messages": _Route(runtime_pb2.PullAppMessagesRequest, authenticated("pull_messages")),
        _RUNTIME + "get-nodes": _Route(runtime_pb2.GetNodesRequest, authenticated("get_nodes")),
        _RUNTIME + "push-object": _Route(message_pb2.PushObjectRequest, authenticated("push_object")),
        _RUNTIME + "pull-object": _Route(message_pb2.PullObjectRequest, authenticated("pull_object")),
        _RUNTIME + "confirm-message-received": _Route(
            message_pb2.ConfirmMessageReceivedRequest, authenticated("confirm_message_received")
        ),
    }
