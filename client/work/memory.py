"""How much memory a child process may take: a bound kept by the kernel, so that a bomb ends the child and not the host.

RLIMIT_DATA counts private writable memory: what Python, numpy, torch, onnxruntime and polars allocate from, and little
else (365 MB of a fresh worker with 379 MB resident). RLIMIT_AS would count address space, of which the same worker maps
1.2 GB. Memory shared with other processes and mapped files are not counted; nothing of ours makes either large.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

_LEAST_DEFAULT = 1 << 30
# torch and onnxruntime have no error class of their own for it.
_WORDS = ("can't allocate memory", "failed to allocate memory", "bad_alloc")


def default() -> int:
    """Half of this host's memory, in bytes, but at least 1 GiB; 0 (no bound) where the host does not say."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
    return max(physical // 2, _LEAST_DEFAULT)


def limit(size: int) -> None:
    """Bound this process to `size` bytes, for good; nothing where it is 0 or the system is not Linux."""
    if size <= 0 or sys.platform != "linux":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = size if hard == resource.RLIM_INFINITY else min(size, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, wanted))


def give_back() -> None:
    """Return to the system what this process has freed but still holds; nothing where its C library cannot."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def exhausted(error: BaseException | None) -> bool:
    """True when an error, or what it came from, says that no more memory was to be had."""
    while error is not None:
        if isinstance(error, MemoryError) or any(word in str(error).lower() for word in _WORDS):
            return True
        error = error.__cause__
    return False
