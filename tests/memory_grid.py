"""Flower's Grid in memory: what the server's link is tested over, with simulated sites at the other end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from flwr.app import Error, Message
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)

from fedsite.protocol.records import from_record, to_record
from tests.simulated_fleet import SimulatedFleet


class MemoryGrid:
    """Flower's Grid as far as we use it: messages go to simulated sites, replies wait to be pulled."""

    def __init__(self, fleet: SimulatedFleet) -> None:
        self.fleet = fleet
        self.numbers = {site.name: index for index, site in enumerate(fleet.all, start=1)}
        self.replies: dict[str, Message] = {}
        self._told: dict[str, Message] = {}
        self.pushes: list[int] = []
        self.pulls: list[int] = []
        self.error: BaseException | None = None
        self.objects: dict[str, bytes] = {}
        self.damage: Callable[[str, dict[str, bytes]], None] = lambda asked, objects: None
        self.confirmed: list[str] = []

    def get_node_ids(self) -> Iterable[int]:
        self._raise()
        return [number for name, number in self.numbers.items() if self.fleet[name].online]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._raise()
        found = []
        batch = list(messages)
        self.pushes.append(len(batch))
        for message in batch:
            name = next(n for n, number in self.numbers.items() if number == message.metadata.dst_node_id)
            message.metadata.__dict__["_message_id"] = f"m{len(self.replies)}"
            for frame in self.fleet[name].receive(from_record(message.content)):
                self.replies[message.metadata.message_id] = Message(to_record(frame), reply_to=message)
            found.append(message.metadata.message_id)
        return found

    @property
    def _runtime_client(self) -> MemoryGrid:
        return self

    @property
    def run(self) -> Any:
        return SimpleNamespace(run_id=1)

    @property
    def node(self) -> Node:
        return Node(node_id=1)

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:
        self._raise()
        self.pulls.append(len(request.message_ids))
        answer = PullAppMessagesResponse()
        for name in request.message_ids:
            reply = self.replies.pop(name, None)
            if reply is None and name in self._told:
                # Flower deletes what it has told, and tells whoever asks again that it is lost.
                reply = copy.deepcopy(self._told[name])
                reply = make_message(metadata=reply.metadata, error=Error(code=3, reason="Message Unavailable"))
            if reply is None:
                continue
            self._told[name] = reply
            with no_object_id_recompute():
                reply.metadata.__dict__["_message_id"] = reply.object_id
                objects = {key: item.deflate() for key, item in get_all_nested_objects(reply).items()}
                answer.messages_list.append(message_to_proto(remove_content_from_message(reply)))
                answer.message_object_trees.append(get_object_tree(reply))
            self.damage(name, objects)
            self.objects |= objects
        return answer

    def PullObject(self, request: Any) -> PullObjectResponse:
        self._raise()
        content = self.objects.get(request.object_id)
        return PullObjectResponse(
            object_found=True, object_available=content is not None, object_content=content or b""
        )

    def ConfirmMessageReceived(self, request: Any) -> None:
        self.confirmed.append(request.message_object_id)

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error
