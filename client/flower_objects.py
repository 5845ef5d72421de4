"""The content of a message from Flower's object store: fetched piece by piece, bounded, and put together again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from flwr.app import ConfigRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedsite.client.flower_client import Connection, translated
from fedsite.protocol.errors import IntegrityError, RefusalCode, UnreachableError
from fedsite.protocol.records import MAX_FRAME

PATIENCE_S = 60.0  # how long to wait for the objects of an announced message
PAUSE_S = 0.02
MAX_OBJECTS = 2048  # in one message: 10 GiB in 5 MiB chunks
WORKERS = 4  # parallel transfers of a large message


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
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
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
