"""A child process never outlives the agent that started it: two ways to notice, either of which is enough."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Make the operating system end this process with its parent, and end now when the parent is gone already."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:
        os._exit(0)


def end_with_pipe(handle: int) -> None:
    """Watch the pipe from a thread: when its other end closes, end at once, whatever is being computed."""

    def watch() -> None:
        poller = select.poll()
        poller.register(handle, 0)
        while True:
            if any(event & (select.POLLHUP | select.POLLERR) for _, event in poller.poll()):
                os._exit(0)

    threading.Thread(target=watch, name="watch-pipe", daemon=True).start()
