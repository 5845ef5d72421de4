"""`fedsite` whose agent keeps a copy of what it releases, and can be made to die at one place of one round.

`python tests/e2e/faulty_agent.py COPIES PLACE ROUND MOMENT up …`: PLACE is an instruction's kind, with its purpose
before it where it has one (`train.share`, `train`, `train.unmask`) or `-` for none; MOMENT is `before` it is carried
out, or `after`, when the answer is on disk and has not left. It dies by SIGKILL, as a power cut would have it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from fedsite.client import cli
from fedsite.client.handler import Handler
from fedsite.client.store import Outbox
from fedsite.protocol import messages
from fedsite.protocol.messages import Frame, Header


def main(copies: Path, place: str, number: int, moment: str, *command: str) -> int:
    """Alter this process, and run the command."""
    carry_out, keep_values = Handler.handle, Outbox.keep_values

    def handle(self: Handler, frame: Frame) -> Frame:
        header = messages.read_header(frame.header)
        here = (f"{header.purpose}.{header.kind}".lstrip("."), header.round) == (place, number)
        if here and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        reply = carry_out(self, frame)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return reply

    def copy(self: Outbox, header: Header, data: bytes, *terms: str) -> Any:
        (copies / f"{header.run_id}-{header.kind}-{header.round}").write_bytes(data)
        return keep_values(self, header, data, *terms)

    Handler.handle = handle  # type: ignore[method-assign]
    Outbox.keep_values = copy  # type: ignore[method-assign]
    return cli.run(list(command))


if __name__ == "__main__":
    folder, where, when, moment, *rest = sys.argv[1:]
    sys.exit(main(Path(folder), where, int(when), moment, *rest))
