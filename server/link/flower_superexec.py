"""Flower's superexec, which also ends with the launcher: with every ServerApp it started, and at once.

Flower's own watch over its parent waits for a moment when nothing is being retried, which may be half a minute away.
A launcher that was killed is a crash: runs go on from their journal.
"""

from __future__ import annotations

import os
import signal
import sys

from fedsite.server.children import on_parent_death


def main() -> None:
    """`python -m fedsite.server.link.flower_superexec PARENT_PID ARGUMENTS…`; leads a process group of its own."""
    parent = int(sys.argv.pop(1))
    on_parent_death(parent, lambda: os.killpg(os.getpgrp(), signal.SIGKILL))
    from flwr.supercore.cli.flower_superexec import flower_superexec

    flower_superexec()


if __name__ == "__main__":
    main()
