"""`fedsite` whose agent keeps a copy of what it releases, and can be made to die at one place of one round.

`python tests/e2e/faulty_agent.py COPIES PLACE ROUND MOMENT up …`: PLACE is an instruction's kind, with its purpose
before it where it has one (`train.share`, `train`, `train.unmask`) or `-` for none; MOMENT is `before` it is carried
out, `after`, when the answer is on disk and has not left, `offered`, when the server knows of the answer and has
nothing of it, or `sent`, when it has all of it and the agent has not written that down. It dies by SIGKILL, as a power
cut would have it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from fedsite.client import cli
from fedsite.client.handler import Handler
from fedsite.client.link.flower_fleet import FleetLink
from fedsite.client.link.unsent import Unsent
from fedsite.client.store import Outbox
from fedsite.protocol import messages
from fedsite.protocol.messages import Frame, Header


def main(copies: Path, place: str, number: int, moment: str, *command: str) -> int:
    """Alter this process, and run the command."""
    carry_out, keep_values, send, forget = Handler.handle, Outbox.keep_values, FleetLink._upload, Unsent.done
    last = {"here": False}

    def handle(self: Handler, frame: Frame) -> Frame:
        header = messages.read_header(frame.header)
        here = (f"{header.purpose}.{header.kind}".lstrip("."), header.round) == (place, number)
        if here and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        reply = carry_out(self, frame)
        if here and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        last["here"] = here
        return reply

    def upload(self: FleetLink, *arguments: Any) -> bool:
        if last["here"] and moment == "offered":
            os.kill(os.getpid(), signal.SIGKILL)
        return send(self, *arguments)

    def done(self: Unsent, name: str) -> None:
        if last["here"] and moment == "sent":
            os.kill(os.getpid(), signal.SIGKILL)
        forget(self, name)

    def copy(self: Outbox, header: Header, data: bytes, *terms: str) -> Any:
        (copies / f"{header.run_id}-{header.kind}-{header.round}").write_bytes(data)
        return keep_values(self, header, data, *terms)

    Handler.handle = handle  # type: ignore[method-assign]
    Outbox.keep_values = copy  # type: ignore[method-assign]
    FleetLink._upload = upload  # type: ignore[method-assign]
    Unsent.done = done  # type: ignore[method-assign]
    return cli.run(list(command))


if __name__ == "__main__":
    folder, where, when, moment, *rest = sys.argv[1:]
    sys.exit(main(Path(folder), where, int(when), moment, *rest))
