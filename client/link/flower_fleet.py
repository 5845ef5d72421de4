"""The site's end of Flower's Fleet API: activate, heartbeat, pull, push, and downloads over the same connection.

Everything goes outward over TLS 1.3 with the site's certificate, to the one authority the site was told to trust. No
bundle is ever fetched, let alone run: what comes in is a frame of bytes. torch is never imported here.
Private parts of Flower used: FleetHttpClient, its interceptors, and `supercore.inflatable`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping

import httpx
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)

from fedsite.client.link.flower_client import NOT_ALLOWED, Connection, translated
from fedsite.client.link.flower_objects import Received, announced, decoded, encoded, pull_content, reply_to
from fedsite.protocol.errors import FedsiteError, IntegrityError, TrustError, UnreachableError
from fedsite.protocol.messages import Frame
from fedsite.protocol.records import from_record

_LOG = logging.getLogger(__name__)

HEARTBEAT_INTERVAL_S = 10.0  # what we promise; a silent node counts as offline after twice that
HEARTBEAT_EVERY_S = 7.0
LONG_POLL_S = 20.0  # how long the server may hold an empty pull
RETRY_S = (0.1, 0.3, 1.0, 2.0, 4.0)  # pauses between attempts to push a reply


class FleetLink:
    """One site's connection. `pull` and `push` belong to one thread; heartbeats have their own."""

    def __init__(self, connection: Connection, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._client = connection.fleet
        self._clock = clock
        self._node: Node | None = None
        self._stop = threading.Event()
        self._heart: threading.Thread | None = None
        self._unconfirmed: list[ConfirmMessageReceivedRequest] = []
        self._lost: TrustError | None = None

    def activate(self) -> None:
        """Tell the server that this site is here, and keep telling it.

        A node that was killed counts as active for a while and cannot be activated again: then a heartbeat is enough.
        Were it deactivated first, the server would give up what this site is still asked.

        Raises:
            UnreachableError: the server does not answer.
            TrustError: it does not know this site, or revoked it, or is not the site's federation.
        """
        node = Node(node_id=self._connection.node_id)
        request = ActivateNodeRequest(
            public_key=self._connection.node_key.public_pem, heartbeat_interval=HEARTBEAT_INTERVAL_S
        )
        with translated(self._connection):
            try:
                with translated(self._connection, pass_status=NOT_ALLOWED):
                    known = self._client.ActivateNode(request).node_id
            except httpx.HTTPStatusError:
                alive = SendNodeHeartbeatRequest(node=node, heartbeat_interval=HEARTBEAT_INTERVAL_S)
                known = node.node_id if self._client.SendNodeHeartbeat(alive).success else 0
        if known != node.node_id:
            raise _unknown(known, node.node_id)
        self._node = node
        self._lost = None
        if self._heart is None:
            self._heart = threading.Thread(target=self._beat, name="fleet-heartbeat", daemon=True)
            self._heart.start()

    def pull(self, wait_s: float = LONG_POLL_S) -> tuple[Received, Frame] | None:
        """The next instruction, or None when there is none after `wait_s` seconds (a plain SuperLink answers at once).

        Raises:
            UnreachableError, TrustError: as `activate`.
            IntegrityError: the message is not a frame; it is gone, the next pull gets the next.
        """
        node = self._active()
        with translated(self._connection), self._connection.patience(wait_s):
            answer = self._client.PullMessages(PullMessagesRequest(node=node))
        if not answer.messages_list:
            self._confirm()
            return None
        received, tree = announced(answer, self._clock())
        message_id = received.message.metadata.message_id
        self._unconfirmed.append(
            ConfirmMessageReceivedRequest(node=node, run_id=received.run_id, message_object_id=message_id)
        )
        try:
            return received, from_record(pull_content(self._connection, node, received.run_id, tree, clock=self._clock))
        except IntegrityError:
            self._confirm()
            raise

    def push(self, received: Received, frame: Frame, noted: Callable[[bytes], None] = lambda note: None) -> bool:
        """Send the reply; False when nobody waits for it any more (the run is over, the instruction expired).

        Tries again by itself when the connection breaks. The reply is the same in every process, so that it counts
        once, and an upload that was broken off goes on where it was.

        Args:
            received: the message that is answered.
            frame: the answer.
            noted: told how far it is (`note`), when the server knows of the reply and does not have all of it yet.

        Raises:
            UnreachableError, TrustError: as `activate`.
        """
        if received.reply is None:
            received.reply = reply_to(received.message, frame)
        for pause in (*RETRY_S, None):
            try:
                return self._push(received, received.reply, noted)
            except UnreachableError:
                if pause is None or self._stop.wait(pause):
                    raise
        raise AssertionError("the last attempt returns or raises")

    def note(self, received: Received) -> bytes:
        """What `push` needs, for another process."""
        return encoded(received)

    def recall(self, note: bytes) -> Received:
        """What `note` was made of.

        Raises:
            IntegrityError: it is something else.
        """
        return decoded(note, self._clock())

    def fetch(self, path: str, *, limit: int) -> bytes:
        """Download `/releases/<version>/<file>`.

        Raises:
            UnreachableError, TrustError: as `activate`.
            IntegrityError: it is not there, or larger than `limit` bytes.
        """
        return self._connection.get(path, limit=limit)

    def close(self) -> None:
        """Say goodbye and close; never raises."""
        self._stop.set()
        if self._node is not None:
            with contextlib.suppress(Exception), translated(self._connection):
                self._confirm()
                self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))
        if self._heart is not None:
            self._heart.join(timeout=2.0)
        self._connection.close()

    def __enter__(self) -> FleetLink:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _active(self) -> Node:
        if self._lost is not None:
            raise self._lost
        if self._node is None:
            raise UnreachableError("the link is not active", next_step="activate() comes before pull() and push()")
        return self._node

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_EVERY_S):
            if self._node is None:
                continue
            request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_INTERVAL_S)
            try:
                with translated(self._connection):
                    answer = self._client.SendNodeHeartbeat(request)
            except TrustError as error:
                self._lost = error
            except FedsiteError as error:
                _LOG.debug("heartbeat: %s", error)
            else:
                self._lost = None if answer.success else _unknown()

    def _push(self, received: Received, reply: Message, noted: Callable[[bytes], None]) -> bool:
        node = self._active()
        try:
            with translated(self._connection, pass_status=NOT_ALLOWED), no_object_id_recompute():
                reply.metadata.__dict__["_message_id"] = reply.object_id
                objects = get_all_nested_objects(reply)
                if received.session and self._upload(node, received, objects):
                    self._confirm()
                    return True
                offered, received.offered = received.offered, True
                answer = self._client.PushMessages(
                    PushMessagesRequest(
                        node=node,
                        messages_list=[message_to_proto(remove_content_from_message(reply))],
                        message_object_trees=[get_object_tree(reply)],
                        clientapp_runtime_list=[self._clock() - received.since],
                    )
                )
                wanted = set(answer.objects_to_push)
                received.wanted = tuple(name for name in objects if name in wanted)
                received.session = answer.session_id if received.wanted else ""
                # Flower answers a refused reply like one whose objects it has: with nothing to push.
                if not received.wanted:
                    return offered
                noted(self.note(received))
                self._upload(node, received, objects)
        except httpx.HTTPStatusError as error:
            _LOG.info("reply to run %s refused with %s", received.run_id, error.response.status_code)
            return False
        self._confirm()
        return True

    def _upload(self, node: Node, received: Received, objects: Mapping[str, InflatableObject]) -> bool:
        """Send what the server waits for; false when it does not wait for all of that any more."""
        complete = True
        while received.wanted:
            name = received.wanted[0]
            answer = self._client.PushObject(
                PushObjectRequest(
                    node=node,
                    run_id=received.run_id,
                    object_id=name,
                    object_content=objects[name].deflate(),
                    session_id=received.session,
                )
            )
            complete &= answer.stored
            received.wanted = received.wanted[1:]
        received.session = ""
        return complete

    def _confirm(self) -> None:
        """Let the server drop what was received; late, because nobody waits for it."""
        pending, self._unconfirmed = self._unconfirmed, []
        for request in pending:
            with contextlib.suppress(IntegrityError), translated(self._connection):
                self._client.ConfirmMessageReceived(request)


def _unknown(known: int = 0, expected: int = 0) -> TrustError:
    return TrustError(
        f"the server knows this site as node {known}" if known else "the server no longer knows this site",
        allowed=str(expected or ""),
        next_step="ask the central team for a new token and join again: fedsite join file:TOKENFILE",
    )


def poll_delay(*, failures: int, held_s: float, idle_s: float, uniform: float) -> float:
    """Seconds to the next pull.

    Args:
        failures: pulls in a row that did not reach the server.
        held_s: how long the last pull took; a server that holds empty pulls needs no pause.
        idle_s: since the last instruction.
        uniform: a draw from [0, 1): sites that failed together do not come back together.
    """
    if failures:
        return min(30.0, 0.5 * 2.0 ** min(failures - 1, 8)) * (0.5 + uniform)
    if held_s >= 1.0:
        return 0.0
    return min(4.0, max(0.03, idle_s / 40.0)) * (0.75 + 0.5 * uniform)
