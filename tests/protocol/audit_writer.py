"""Appends to logs and dies by SIGKILL at their writes: before one, after half of it, or after it.

Reads one JSON line for each life: folder, the number of the write from 1, and `before`, `half` or `after`. Lives it in
a process of its own, and prints how that ended. The head of each entry, once that is promised, is a line of `told`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedsite.protocol import shape
from fedsite.protocol.audit_file import AuditFile
from tests.protocol.conftest import NOW, key_of

CALLS = ("write", "fsync", "ftruncate", "replace", "unlink")
ENTRIES = 6


def live(folder: Path, number: int, end: str) -> None:
    """Append until it is over."""
    left = number

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left:
                return real(*arguments, **named)
            if end == "half" and name == "write":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            if end == "after":
                real(*arguments, **named)
            return os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in CALLS:
        setattr(os, name, watched(name))
    log = AuditFile(folder, key_of("site"), owner="site", clock=lambda: NOW, file_bytes=900, keep_files=2)
    with (folder / "told").open("w", buffering=1) as told:
        for entry in range(ENTRIES):
            head = log.append("did", {"entry": entry})
            print(json.dumps(shape.plain(head)), file=told)


def main() -> None:
    """One life for each line."""
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                live(Path(asked["folder"]), asked["call"], asked["end"])
            except BaseException as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
