"""Messages as Flower knows them: their content fetched piece by piece and bounded, their replies, and what is kept.

Private parts of Flower used: `supercore.inflatable`, `make_message`, `serde`.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedsite.client.link.flower_client import Connection, translated
from fedsite.protocol import documents
from fedsite.protocol.errors import FedsiteError, IntegrityError, RefusalCode, UnreachableError
from fedsite.protocol.messages import Frame
from fedsite.protocol.records import MAX_FRAME, to_record

PATIENCE_S = 60.0  # how long to wait for the objects of an announced message
PAUSE_S = 0.02
MAX_OBJECTS = 2048  # in one message: 10 GiB in 5 MiB chunks
WORKERS = 4  # parallel transfers of a large message


@dataclass(slots=True)
class Received:
    """A message that waits for its reply; hand it back to `push`."""

    run_id: int
    message: Message  # without its content
    since: float  # monotonic seconds
    reply: Message | None = field(default=None, repr=False)
    offered: bool = False  # the server may know of the reply
    session: str = ""  # of the server, for an upload that it waits for
    wanted: tuple[str, ...] = ()  # objects that it waits for


def reply_to(message: Message, frame: Frame) -> Message:
    """The reply to a message; the same one whenever and wherever it is made, which is what the server tells it by.

    It is dated as the message is, by the server's clock: whether it is still in time is not for ours to say.
    """
    asked = message.metadata
    metadata = Metadata(
        run_id=asked.run_id,
        message_id="",
        src_node_id=asked.dst_node_id,
        dst_node_id=asked.src_node_id,
        reply_to_message_id=asked.message_id,
        group_id=asked.group_id,
        created_at=asked.created_at,
        ttl=asked.ttl,
        message_type=asked.message_type,
        src_task_id=asked.dst_task_id,
        dst_task_id=asked.src_task_id,
    )
    return make_message(metadata=metadata, content=to_record(frame))


def encoded(received: Received) -> bytes:
    """What another process needs to send the reply."""
    value = {
        "message": base64.b64encode(message_to_proto(received.message).SerializeToString()).decode("ascii"),
        "session": received.session,
        "wanted": list(received.wanted),
    }
    return documents.canonical(value)


def decoded(note: bytes, now: float) -> Received:
    """The inverse of `encoded`; `now` is monotonic seconds.

    Raises:
        IntegrityError: it is something else.
    """
    try:
        value = documents.parse(note)
        message = message_from_proto(ProtoMessage.FromString(base64.b64decode(value["message"], validate=True)))
        session, wanted = str(value["session"]), tuple(str(name) for name in value["wanted"])
    except Exception:  # Flower's errors have no root of their own
        raise IntegrityError("what is kept of a message is no message", refusal=RefusalCode.STORAGE) from None
    run_id = message.metadata.run_id
    return Received(run_id=run_id, message=message, since=now, offered=bool(session), session=session, wanted=wanted)


def announced(answer: PullMessagesResponse, now: float) -> tuple[Received, ObjectTree]:
    """The first message of an answer to a pull, and the tree of its content; `now` is monotonic seconds.

    Raises:
        IntegrityError: it is something else.
    """
    try:
        message, tree = message_from_proto(answer.messages_list[0]), answer.message_object_trees[0]
    except Exception:  # Flower's errors have no root of their own
        raise _malformed("a message that is none") from None
    return Received(run_id=message.metadata.run_id, message=message, since=now), tree


def pull_content(
    connection: Connection, node: Node, run_id: int, tree: ObjectTree, *, clock: Callable[[], float] = time.monotonic
) -> RecordDict:
    """The content of the message at the root of `tree`.

    Of a small frame only its one record is fetched: the tree says the rest.

    Raises:
        IntegrityError: not a message of ours, gone, or too large.
        UnreachableError, TrustError: as every call.
    """
    if len(tree.children) != 1:
        raise _malformed("a message without content")
    record = tree.children[0]
    objects = list(dict.fromkeys(_ids(record)))
    if len(objects) > MAX_OBJECTS:
        raise _too_large(f"{len(objects)} objects", f"at most {MAX_OBJECTS}")

    def pull(name: str) -> bytes:
        return _pull_object(connection, PullObjectRequest(node=node, run_id=run_id, object_id=name), clock)

    try:
        if len(record.children) == 1 and not record.children[0].children:
            return RecordDict({"frame": ConfigRecord.inflate(pull(record.children[0].object_id))})
        found = inflate_object_from_contents(record.object_id, _pull_all(objects, pull))
    except FedsiteError:
        raise
    except Exception as error:
        raise _malformed(f"an object that does not inflate ({type(error).__name__})") from None
    if not isinstance(found, RecordDict):
        raise _malformed(f"a {type(found).__name__}")
    return found


def _pull_all(objects: list[str], pull: Callable[[str], bytes]) -> dict[str, bytes]:
    total = 0
    contents: dict[str, bytes] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        for name, content in zip(objects, pool.map(pull, objects), strict=True):
            total += len(content)
            if total > MAX_FRAME:
                pool.shutdown(cancel_futures=True)
                raise _too_large(f"a message above {MAX_FRAME} bytes", f"at most {MAX_FRAME} bytes")
            contents[name] = content
    return contents


def _pull_object(connection: Connection, request: PullObjectRequest, clock: Callable[[], float]) -> bytes:
    until = clock() + PATIENCE_S
    while clock() < until:
        with translated(connection):
            answer = connection.fleet.PullObject(request)
        if not answer.object_found:
            raise _malformed("an object that is gone")
        if answer.object_available:
            return bytes(answer.object_content)
        time.sleep(PAUSE_S)
    raise UnreachableError("the server announced a message and never got its content")


def _ids(tree: ObjectTree) -> Iterator[str]:
    for child in tree.children:
        yield from _ids(child)
    yield tree.object_id


def _malformed(found: str) -> IntegrityError:
    return IntegrityError(f"{found} from the server", allowed="a fedsite frame", refusal=RefusalCode.MALFORMED)


def _too_large(found: str, allowed: str) -> IntegrityError:
    return IntegrityError(found, allowed=allowed, refusal=RefusalCode.TOO_LARGE)
