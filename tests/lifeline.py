"""What a test starts ends with it, also where pytest is killed (kill -9, `timeout`) and can end nothing any more."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def lifeline() -> Callable[[], None] | None:
    """For `preexec_fn` of subprocess: the operating system kills the child when the thread that starts it ends.

    That has to be the first thread, which ends with the process. None where there is no such thing.
    """
    if sys.platform != "linux":
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it was killed just before
            os._exit(1)

    return in_child
