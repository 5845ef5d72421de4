"""The link against a server in memory: nonsense in its answers, answers that are lost, another release of Flower."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from flwr.app import Message, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeResponse, PullMessagesResponse, PushMessagesRequest, PushMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse, PushObjectRequest, PushObjectResponse
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.client.link import bounds, flower_client, flower_fleet
from fedsite.client.link.clocks import ClockError
from fedsite.client.link.flower_client import Connection
from fedsite.client.link.flower_fleet import FleetLink
from fedsite.client.link.flower_objects import Received
from fedsite.protocol.errors import FedsiteError, IntegrityError, RefusalCode, TrustError, UnreachableError
from fedsite.protocol.keys import NodeKey, SigningKey
from fedsite.protocol.messages import Frame
from fedsite.protocol.records import INLINE, to_record
from tests.client.conftest import federation_of

NODE = 7
FEDERATION, NODE_KEY = federation_of(SigningKey.generate()), NodeKey.generate()
SMALL = Frame(header=b"header", signature=b"signature")
FRAME = Frame(header=b"header", signature=b"signature", blobs={"model": bytes(range(256)) * (INLINE // 256 + 1)})
FEW = settings(max_examples=30)

Answers = Callable[[str, bytes], bytes | httpx.Response]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between attempts, and no heartbeat unless a test says so."""
    monkeypatch.setattr(flower_fleet, "RETRY_S", (0.0,) * 5)
    monkeypatch.setattr(flower_fleet, "HEARTBEAT_EVERY_S", 3600.0)


def link_to(answers: Answers) -> FleetLink:
    """An active link to a server that answers so, by the last part of the path and the request's body."""

    def answer(request: httpx.Request) -> httpx.Response:
        name = request.url.path.rpartition("/")[2]
        if name == "activate-node":
            return httpx.Response(200, content=ActivateNodeResponse(node_id=NODE).SerializeToString())
        found = answers(name, request.read())
        return found if isinstance(found, httpx.Response) else httpx.Response(200, content=found)

    hooks = {"response": [bounds.bound]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            flower_client,
            "http_client",
            lambda *_: httpx.Client(transport=httpx.MockTransport(answer), event_hooks=hooks),
        )
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        link = FleetLink(Connection(FEDERATION, tls=tls, node_key=NODE_KEY, node_id=NODE))
    link.activate()
    return link


def message(frame: Frame = SMALL) -> Message:
    """An instruction on its way to us."""
    made: Message = make_message(
        metadata=Metadata(9, "", 1, NODE, "", "", 1_800_000_000.0, 90.0, "query"), content=to_record(frame)
    )
    made.metadata.__dict__["_message_id"] = made.object_id
    return made


def pulled(made: Message) -> PullMessagesResponse:
    bare = message_to_proto(remove_content_from_message(made))
    return PullMessagesResponse(messages_list=[bare], message_object_trees=[get_object_tree(made)])


ASKED = pulled(message())
NONSENSE = st.one_of(
    st.binary(max_size=64),
    st.just(ASKED.SerializeToString()),
    st.just(PullMessagesResponse(messages_list=ASKED.messages_list).SerializeToString()),
    st.builds(
        lambda content: PullObjectResponse(
            object_found=True, object_available=True, object_content=content
        ).SerializeToString(),
        st.one_of(st.binary(max_size=64), st.just(RecordDict().deflate()), st.just(message().deflate())),
    ),
    st.builds(
        lambda depth: PullMessagesResponse(
            messages_list=ASKED.messages_list, message_object_trees=[deep(depth)]
        ).SerializeToString(),
        st.integers(0, 40),
    ),
    st.integers(200, 599).map(lambda status: httpx.Response(status, content=b"nonsense")),
)


def deep(depth: int) -> ObjectTree:
    tree = ObjectTree(object_id="a" * 64)
    for _ in range(depth):
        tree = ObjectTree(object_id="b" * 64, children=[tree])
    return tree


def ends(call: Callable[[], object], *kinds: type[FedsiteError]) -> None:
    """It returns, or says by name what is wrong."""
    with contextlib.suppress(*kinds):
        call()


@FEW
@given(st.dictionaries(st.sampled_from(["pull-messages", "pull-object", "confirm-message-received"]), NONSENSE))
def test_whatever_is_pulled_is_an_instruction_or_an_error_by_name(given: dict[str, bytes | httpx.Response]) -> None:
    link = link_to(lambda name, _: given.get(name, ASKED.SerializeToString()))
    for _ in range(2):
        ends(lambda: link.pull(wait_s=0.0), UnreachableError, TrustError, IntegrityError)
    assert len(link._unconfirmed) <= 2


@FEW
@given(st.dictionaries(st.sampled_from(["push-messages", "push-object", "confirm-message-received"]), NONSENSE))
def test_whatever_a_push_is_answered_with_it_is_sent_or_an_error_by_name(
    given: dict[str, bytes | httpx.Response],
) -> None:
    link = link_to(lambda name, _: given.get(name, b""))
    ends(lambda: link.push(waiting(), SMALL), UnreachableError, TrustError)


@dataclass
class Flower:
    """As much of the server as a push meets; `lost` are the numbers of requests whose answers do not arrive."""

    lost: frozenset[int] = frozenset()
    known: dict[str, list[str]] = field(default_factory=dict)  # replies that it was told of, and their objects
    objects: dict[str, bytes] = field(default_factory=dict)
    stored: Counter[str] = field(default_factory=Counter)
    asked: int = 0

    def __call__(self, name: str, body: bytes) -> bytes:
        answer = self._answer(name, body)
        self.asked += 1
        if self.asked - 1 in self.lost:
            raise httpx.ReadError("lost")
        return answer

    def _answer(self, name: str, body: bytes) -> bytes:
        if name == "push-messages":
            told = PushMessagesRequest.FromString(body)
            reply, objects = told.messages_list[0], list(ids(told.message_object_trees[0]))
            self.known.setdefault(reply.metadata.message_id, objects)
            wanted = [one for one in objects if one not in self.objects]
            return PushMessagesResponse(objects_to_push=wanted, session_id="s").SerializeToString()
        if name == "push-object":
            sent = PushObjectRequest.FromString(body)
            new = sent.object_id not in self.objects
            self.objects[sent.object_id] = sent.object_content
            self.stored[sent.object_id] += new
            return PushObjectResponse(stored=new).SerializeToString()
        return b""


def ids(tree: ObjectTree) -> Iterator[str]:
    for child in tree.children:
        yield from ids(child)
    yield tree.object_id


@pytest.mark.parametrize("again", [1, 2])
def test_an_answer_of_the_server_that_is_lost_costs_a_request_and_the_reply_counts_once(again: int) -> None:
    """Of each request in turn, and of the `again` - 1 after it; over one process, and over one that comes after it."""
    whole = Flower()
    assert link_to(whole).push(waiting(), FRAME)
    assert whole.asked >= 4
    for first in range(whole.asked):
        server = Flower(lost=frozenset(range(first, first + again)))
        assert link_to(server).push(waiting(), FRAME), first
        assert (list(server.known), server.objects) == (list(whole.known), whole.objects), first
        assert set(server.stored.values()) == {1}

        server, notes = Flower(lost=frozenset(range(first, 999))), [link_to(whole).note(waiting())]
        with pytest.raises(UnreachableError):
            link_to(server).push(waiting(), FRAME, notes.append)
        server.lost = frozenset()
        later = link_to(server)
        assert later.push(later.recall(notes[-1]), FRAME) or len(server.objects) == len(whole.objects), first
        assert (list(server.known), server.objects) == (list(whole.known), whole.objects), first
        assert set(server.stored.values()) == {1}


def waiting() -> Received:
    return Received(run_id=9, message=remove_content_from_message(message()), since=0.0)


def test_another_release_of_flower_is_an_error_with_a_remedy_and_ends_nothing() -> None:
    details = "SuperLink version 1.42.0 detected a runtime version mismatch: received SuperNode version 1.41.2."
    told = FlowerError(ApiErrorCode.RUNTIME_VERSION_INCOMPATIBLE, "", public_details=details).to_json("Not compatible.")
    link = link_to(lambda *_: httpx.Response(426, content=json.dumps(told).encode()))
    with pytest.raises(UnreachableError, match=r"another release.*version 1\.42\.0") as error:
        link.pull(wait_s=0.0)
    assert error.value.refusal == RefusalCode.PROTOCOL_VERSION
    assert "fedsite --version" in error.value.next_step


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.Response(401, headers={"date": "Thu, 01 Jan 1970 00:00:00 GMT"}), ClockError),
        (SendNodeHeartbeatResponse(success=False).SerializeToString(), TrustError),
        (httpx.Response(403), None),
        (httpx.Response(500), None),
        (b"\xff\xff", None),
    ],
    ids=["clock", "unknown", "not allowed", "trouble", "nonsense"],
)
def test_what_a_heartbeat_is_answered_with_is_what_the_next_call_says(
    answer: Any, kind: type[FedsiteError] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that is wrong stays one: it is waited for, and no broken trust. The heart beats on in each case."""
    link = link_to(lambda name, _: answer if name == "send-node-heartbeat" else b"")
    monkeypatch.setattr(link._stop, "wait", lambda _, beats=iter((False, False, True)): next(beats))
    link._beat()
    if kind is None:
        assert link.pull(wait_s=0.0) is None
    else:
        with pytest.raises(TrustError) as error:
            link.pull(wait_s=0.0)
        assert type(error.value) is kind
        assert error.value.next_step
