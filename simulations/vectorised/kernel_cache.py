"""Kernels of this machine: compiled once, in seconds, with progress; kept in the user's cache, and loaded from there.

The folder is named after the kernels' sources, because Numba does not notice an edit in a module that another one
imports, and Numba itself tells processors apart. One process compiles at a time; the next ones find what it left.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedsite.simulations.vectorised.program import LAYER_COLUMNS, VALUE_COLUMNS

logger = logging.getLogger(__name__)

Tell = Callable[[int, int, str], None]  # functions compiled so far, of how many, and the name of the last one

_SOURCES: Final = (
    "convolution_kernels.py", "dense_kernels.py", "elementwise.py", "gaussian.py", "kernels.py", "layers.py",
    "pool_tiles.py", "pooling_kernels.py", "products.py", "program.py", "randomness.py", "recurrent.py",
    "recurrent_layer.py", "sums.py", "tiles.py",
)  # fmt: skip
FUNCTIONS: Final = 132  # compiled for all kernels; a test counts them


def cached() -> bool:
    """Whether kernels have been compiled here before; if not, the first use takes some seconds longer."""
    return any(_folder().rglob("kernels.train_chunk*.nbc"))


def warm(tell: Tell = lambda done, all_, name: None) -> Any:
    """The kernels' module, ready to be called; `tell` hears how far it is where something has to be compiled."""
    if _loaded.cache_info().currsize:  # every chunk of sites comes by here
        return _loaded()
    if not cached():
        logger.info("compiling kernels for this processor; they are kept in %s", _folder())
    with _told(tell):
        return _loaded()


@cache
def _loaded() -> Any:
    import numba

    with _alone() as folder:
        numba.config.CACHE_DIR = str(folder)
        from fedsite.simulations.vectorised import kernels

        kernels.train_chunk(*_nobody())
    return kernels


def _folder() -> Path:
    """Where compiled kernels of these sources are kept."""
    here = Path(__file__).parent
    digest = hashlib.sha256(b"".join((here / name).read_bytes() for name in _SOURCES)).hexdigest()[:16]
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "fedsite" / f"kernels-{digest}"


@contextlib.contextmanager
def _alone() -> Iterator[Path]:
    """The folder, while no other process compiles into it; a passing one where it cannot be written."""
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        logger.warning("kernels cannot be kept in %s (%s): they are compiled again in every process", folder, error)
        with tempfile.TemporaryDirectory(prefix="fedsite-kernels-") as passing:
            yield Path(passing)
        return
    with lock:
        with contextlib.suppress(ImportError):  # where there is no flock, Numba's own files are replaced as a whole
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@contextlib.contextmanager
def _told(tell: Tell) -> Iterator[None]:
    """Numba's own events, counted."""
    from numba.core import event

    class Counter(event.Listener):
        done = 0

        def on_start(self, event: Any) -> None:
            """A function inside another begins later and ends earlier: ends are counted."""

        def on_end(self, event: Any) -> None:
            self.done += 1
            tell(min(self.done, FUNCTIONS), FUNCTIONS, event.data["dispatcher"].py_func.__name__)

    with event.install_listener("numba:compile", Counter()):
        yield


def _nobody() -> tuple[Any, ...]:
    """Arguments of the types that every call has, for a chunk of no sites."""
    floats, ints, number = np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int64), np.float32(0.0)
    tables = np.zeros(1, np.int64)
    tables.flags.writeable = False
    return (
        np.zeros((0, 0, 0), np.int64), ints, ints[:, 0:0].reshape(0), floats, floats, np.zeros(0, np.int64),
        np.zeros(0, np.float32), np.zeros((0, LAYER_COLUMNS), np.int64), np.zeros((1, VALUE_COLUMNS), np.int64), tables,
        np.zeros((0, 4), np.int64), (0, 0, 0, 0, 0), 0, (number,) * 4, (number,) * 3, np.zeros((0, 0), np.uint64),
        floats, np.zeros(0, np.int64), np.zeros(0, np.int64), floats,
    )  # fmt: skip
