"""Replies from the SuperLink, one at a time and bounded: what one site sends, or stops sending, is that site's outcome.

Flower's `HttpGrid.pull_messages` waits for minutes for an upload that was broken off, inflates whatever it gets, and
lets one object that does not inflate end the ServerApp with every other reply of the same call.
Private parts of Flower used: the grid's runtime client, `inflatable`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import RunNotRunningException

MAX_OBJECTS = 2048  # in one reply


@dataclass(frozen=True, slots=True, kw_only=True)
class _Announced:
    """An answer that is there or on its way."""

    name: str  # its message id
    tree: ObjectTree
    lost: bool  # an error of Flower's in the place of the site's answer


class Replies:
    """Replies that were announced, by the instruction that each answers, until all of their objects are there."""

    def __init__(self, grid: Any, *, limit: int) -> None:
        """Take from `grid` (Flower's, of the ServerApp) no reply larger than `limit` bytes."""
        self._grid = grid
        self._limit = limit
        self._announced: dict[str, _Announced] = {}  # by the instruction that is answered

    def announce(self, message_ids: Sequence[str]) -> None:
        """Ask which of these instructions have been answered; each answer is told once, and then forgotten there."""
        unknown = [asked for asked in message_ids if asked not in self._announced]
        if not unknown:
            return
        client = self._grid._runtime_client
        answer = client.PullMessages(PullAppMessagesRequest(message_ids=unknown))
        for proto, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            self._announced[proto.metadata.reply_to_message_id] = _Announced(
                name=proto.metadata.message_id, tree=tree, lost=proto.HasField("error")
            )

    def settle(self, message_ids: Sequence[str]) -> dict[str, bool]:
        """Those among these that are announced, true where a site answered; forgotten here, and never fetched."""
        self.announce(message_ids)
        settled = [asked for asked in message_ids if asked in self._announced]
        return {asked: not self._announced.pop(asked).lost for asked in settled}

    def waiting(self, message_ids: Collection[str]) -> list[str]:
        """The instructions among these whose answers are announced; others are forgotten."""
        self._announced = {asked: found for asked, found in self._announced.items() if asked in message_ids}
        return list(self._announced)

    def take(self, asked: str) -> Message | None:
        """The answer to one instruction, None while it is on its way; what is no message is an error in its place."""
        announced = self._announced[asked]
        try:
            contents = self._contents(announced.tree)
            if contents is None:
                return None
            message = inflate_object_from_contents(announced.name, contents)
            if not isinstance(message, Message):
                raise TypeError(f"a {type(message).__name__}")
        except (httpx.HTTPError, RunNotRunningException):
            raise
        except Exception as error:
            message = self._unusable(f"the reply is no message ({type(error).__name__}: {str(error)[:120]})")
        # What the SuperLink has checked counts, not what the content says of itself.
        message.metadata.__dict__["_reply_to_message_id"] = asked
        del self._announced[asked]
        with contextlib.suppress(httpx.HTTPError):
            self._grid._runtime_client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(
                    node=self._grid.node, run_id=self._grid.run.run_id, message_object_id=announced.name
                )
            )
        return message

    def _contents(self, tree: ObjectTree) -> dict[str, bytes] | None:
        """Every object of a reply; None when one is still on its way."""
        names = list(dict.fromkeys(item.object_id for item in iterate_object_tree(tree)))
        if len(names) > MAX_OBJECTS:
            raise ValueError(f"{len(names)} objects, allowed {MAX_OBJECTS}")
        contents: dict[str, bytes] = {}
        size = 0
        # The root is uploaded last: while it is missing, nothing else is fetched in vain.
        for name in reversed(names):
            answer = self._grid._runtime_client.PullObject(
                PullObjectRequest(node=self._grid.node, run_id=self._grid.run.run_id, object_id=name)
            )
            if not answer.object_found:
                raise ValueError("an object is gone")
            if not answer.object_available:
                return None
            contents[name] = bytes(answer.object_content)
            size += len(contents[name])
            if size > self._limit:
                raise ValueError(f"more than {self._limit} bytes")
        return contents

    def _unusable(self, reason: str) -> Message:
        metadata = Metadata(
            run_id=self._grid.run.run_id,
            message_id="",
            src_node_id=self._grid.node.node_id,
            dst_node_id=self._grid.node.node_id,
            message_type="query",
            group_id="",
            ttl=0,
            reply_to_message_id="",
            created_at=0,
        )
        return make_message(metadata=metadata, error=Error(code=ErrorCode.MESSAGE_UNAVAILABLE, reason=reason))
