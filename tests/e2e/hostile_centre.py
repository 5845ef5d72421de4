"""A hostile centre: the real server with its real keys, whose ServerApp says whatever a test gives it to the real site.

It is no forger: it holds the key that the site believes. A frame goes as a file to the ServerApp, through the SuperLink
and its TLS port to the agent; the answer comes back the same way, and is checked against the site's identity.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from fedsite.client.identity import site as identity
from fedsite.client.identity.site import Site
from fedsite.protocol import ids, instants, kept, sealing, signing
from fedsite.protocol.encoding import enc
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, Header, ReplyHeader, read_reply
from fedsite.protocol.plan import LocalPlan, ModelPlan, PrivacyPlan, ProtectionPlan, RoundPlan, RoundsPlan
from fedsite.server.home import ServerHome
from tests.e2e.federation import Federation

LONGEST_S = 120.0  # for one answer, on a loaded machine
FOLDER = "HOSTILE"  # environment variable: where frames and answers lie

SERVER_APP = """
import os, pathlib, time
from flwr.app import Message
from flwr.serverapp import ServerApp
from fedsite.protocol import kept, records
from fedsite.server.link.flower_push import forgiving
from fedsite.server.link.flower_replies import Replies

records._check_size = lambda *given: None  # it keeps to no bound
folder = pathlib.Path(os.environ["HOSTILE"])
app = ServerApp()

@app.main()
def main(grid, context):
    grid = forgiving(grid)
    replies, asked, since = Replies(grid, limit=1 << 26), {}, 0.0
    [node] = grid.get_node_ids()
    while not (folder / "end").exists():
        for path in folder.glob("*.asked"):
            content = records.to_record(kept.decode(path.read_bytes()))
            path.unlink()
            [name] = grid.push_messages([Message(content, node, "query", ttl=300)])
            asked[name], since = path, time.monotonic()
        replies.announce(list(asked))
        for name in replies.waiting(list(asked)):
            reply = replies.take(name)
            if reply is None:
                continue
            path = asked.pop(name)
            found = b"" if reply.has_error() else kept.encode(records.from_record(reply.content))
            path.with_suffix(".new").write_bytes(found)
            path.with_suffix(".new").rename(path.with_suffix(".answered"))
        time.sleep(min(max((time.monotonic() - since) / 20, 0.01), 0.1))
"""


@dataclass
class Centre:
    """The federation's own keys, and the one site that trusts them."""

    running: Federation
    name: str  # of the site
    folder: Path  # shared with the ServerApp
    data: Path  # the site's
    task: dict[str, Any]
    model: ModelPlan
    rules: str  # of the site, as it stands in site.yaml
    run_key: sealing.RunKey = field(default_factory=sealing.make_run_key)
    asked: int = 0

    @property
    def key(self) -> SigningKey:
        """Signs instructions."""
        return ServerHome(self.running.state).signing_key()

    @property
    def site(self) -> Site:
        """Whom it asks."""
        return identity.load(self.running.site_state(self.name))

    def plan(self, **changes: Any) -> RoundPlan:
        """A plan that the site accepts."""
        values: dict[str, Any] = {
            "federation": self.site.federation.id,
            "run_id": ids.ulid(),
            "created": instants.text(instants.now()),
            "task": self.task,
            "model": self.model,
            "local": LocalPlan(steps=2, sampling_rate=0.2),
            "privacy": privacy(),
            "protection": ProtectionPlan(mode="sealed"),
            "rounds": RoundsPlan(count=2, minimum=3),
        }
        return RoundPlan(**(values | changes))

    def ask(self, kind: str, plan: RoundPlan, blobs: Mapping[str, bytes], **changes: Any) -> Frame:
        """A signed instruction."""
        values: dict[str, Any] = {
            "kind": kind,
            "federation": plan.federation,
            "site_id": self.site.id,
            "run_id": plan.run_id,
            "round": 0 if kind == "prepare" else 1,
            "attempt": 1,
            "plan_hash": plan.hash,
            "run_key": self.run_key.public if plan.protection.mode == "sealed" else "",
            "expires": instants.text(instants.now() + timedelta(seconds=LONGEST_S)),
        }
        return signing.sign_instruction(Header(**(values | changes)), blobs, self.key)

    def prepare(self, plan: RoundPlan | None = None, **changes: Any) -> Frame:
        """The instruction that begins a run; of a plan that the site accepts unless another is given."""
        plan = self.plan() if plan is None else plan
        return self.ask("prepare", plan, {"plan": plan.encode()}, **changes)

    def work(self, kind: str, plan: RoundPlan, blobs: Mapping[str, bytes], **changes: Any) -> Frame:
        """Work of an accepted run; its model's hash is the true one, and its round the second, unless changed."""
        model = blobs.get("model") or blobs.get("graph") or b""
        values: dict[str, Any] = {"round": 2, "model_hash": hashlib.sha256(model).hexdigest()}
        values["body"] = {"normalisation": {"mean": [50.0, 5.0], "scale": [20.0, 3.0]}, "tensors": ["x"]}
        return self.ask(kind, plan, blobs, **(values | changes))

    def sign(self, header: bytes) -> Frame:
        """Any bytes under the federation's signature."""
        return Frame(header=header, signature=self.key.sign(enc("fedsite/sig/instruction/1", header)))

    def say(self, frame: Frame) -> Path:
        """Send a frame; returns the file that its answer will be in."""
        self.asked += 1
        path = self.folder / f"{self.asked:04d}.asked"
        path.with_suffix(".draft").write_bytes(kept.encode(frame))
        path.with_suffix(".draft").rename(path)
        return path.with_suffix(".answered")

    def send(self, frame: Frame) -> Frame:
        """The site's answer, as it came."""
        answer, until = self.say(frame), time.monotonic() + LONGEST_S
        while not answer.exists():
            assert time.monotonic() < until, self.running.log("server", self.name)
            time.sleep(0.01)
        assert answer.stat().st_size, "Flower's own error came in the place of an answer"
        return kept.decode(answer.read_bytes())

    def answer(self, frame: Frame) -> ReplyHeader:
        """What the site says to a frame, under its own signature."""
        reply = self.send(frame)
        self.site.key.public.verify(reply.signature, enc("fedsite/sig/reply/1", reply.header), "reply")
        header = read_reply(reply.header)
        assert header.instruction == signing.instruction_hash(frame)
        return header

    def rule(self, old: str, new: str) -> None:
        """Write one of the site's rules anew."""
        assert old in self.rules
        (self.running.site_state(self.name) / "site.yaml").write_text(self.rules.replace(old, new))

    def workers(self) -> set[int]:
        """The agent's child processes: nothing that holds torch or data is anywhere else."""
        return {child.pid for child in psutil.Process(self.running.agents[self.name].pid).children(recursive=True)}

    def log(self) -> str:
        """What the agent wrote for its operator."""
        return (self.running.site_home(self.name) / "up.stderr").read_text()

    def logged(self, words: str, times: int, since: int) -> None:
        """Wait until the agent has written these words so often since a length of its log."""
        until = time.monotonic() + LONGEST_S
        while (found := self.log()[since:]).count(words) < times:
            assert time.monotonic() < until, found
            time.sleep(0.01)

    def audit(self) -> list[dict[str, Any]]:
        """The entries of the site's audit log."""
        files = sorted((self.running.site_state(self.name) / "audit").rglob("*.jsonl"))
        return [json.loads(line) for path in files for line in path.read_text().splitlines()]

    def end(self) -> None:
        """Let the ServerApp go."""
        (self.folder / "end").touch()


def privacy(**changes: Any) -> PrivacyPlan:
    """What the site lets a run cost, unless changed."""
    return PrivacyPlan(**({"mode": "sample", "epsilon": 4.0, "noise_multiplier": 4.0, "accountant": "rdp"} | changes))


class Opened:
    """Whether a file was opened, by whomever: the kernel tells (inotify)."""

    _IN_OPEN = 0x20

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(self._handle, os.fsencode(path), self._IN_OPEN) >= 0, ctypes.get_errno()

    def __bool__(self) -> bool:
        """Whether it was since this was last asked."""
        try:
            return bool(os.read(self._handle, 1 << 16))
        except BlockingIOError:
            return False

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._handle)
