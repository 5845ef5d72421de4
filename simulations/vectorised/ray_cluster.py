"""Ray for the length of one simulation: a private one on this machine's loopback, or a cluster that is there already.

`RAY_ADDRESS` names the cluster to join. Where it is not set, Ray is started here and ended with everything it started;
it listens on 127.0.0.1 only, writes its logs into a folder of its own that is removed, and reports nothing to anybody.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from fedsite.protocol.errors import ConfigError, UnreachableError

ADDRESS: Final = "RAY_ADDRESS"
END_S: Final = 5.0  # seconds that processes have to end by themselves
STORE_BYTES: Final = 96 << 20  # of shared memory, at least: Ray takes no less than 75 MiB
# What Ray reads when it is imported. The third keeps every listener on 127.0.0.1; its name is about other systems.
QUIET: Final[Mapping[str, str]] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
_SOCKET_ROOM: Final = 40  # characters of a folder's path: a socket's name below it has 107 in all

_log = logging.getLogger(__name__)


@contextmanager
def running(*, cpus: int, gpus: int, store_bytes: int) -> Iterator[bool]:
    """Have Ray until the block ends; yields whether this process started it.

    Args:
        cpus: actors that will each take one.
        gpus: to offer, where Ray is started here.
        store_bytes: for what actors and we send each other, where Ray is started here.

    Raises:
        ConfigError: Ray is not installed, or the cluster has fewer CPUs.
        UnreachableError: there is no cluster at RAY_ADDRESS, or Ray did not start here.
    """
    address = os.environ.get(ADDRESS)
    ray = _imported(private=address is None)
    if ray.is_initialized():  # a notebook's own: used and left alone
        _enough(ray, cpus)
        yield False
        return
    if address is not None:
        with _joined(ray, address):
            _enough(ray, cpus)
            yield False
        return
    with _started(ray, cpus, gpus, store_bytes):
        yield True


def _imported(*, private: bool) -> Any:
    """The package, told to be quiet before it reads its environment."""
    wanted = QUIET if private else {name: value for name, value in QUIET.items() if "CLUSTER" not in name}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "simulation.backend is ray, which is not installed",
            allowed="simulation.backend=local needs nothing more",
            next_step="pip install 'fedsite[sim]'",
        ) from None
    return ray


def _enough(ray: Any, cpus: int) -> None:
    there = int(ray.cluster_resources().get("CPU", 0))
    if there < cpus:
        raise ConfigError(
            f"simulation.workers is {cpus} on a Ray cluster with {there} CPUs",
            allowed=f"at most {there}: each worker takes one",
        )


@contextmanager
def _joined(ray: Any, address: str) -> Iterator[None]:
    try:
        _answers(address)
        with _signals_kept():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        raise UnreachableError(
            f"no Ray cluster at {ADDRESS}={address} ({str(error).splitlines()[0]:.200})",
            allowed="the address of a running head node",
            next_step=f"ray status, or unset {ADDRESS} to use this machine alone",
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _answers(address: str) -> None:
    """Ask whether anybody listens there: Ray itself tries for minutes.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=END_S).close()


@contextmanager
def _started(ray: Any, cpus: int, gpus: int, store_bytes: int) -> Iterator[None]:
    folder = Path(tempfile.mkdtemp(prefix="fedsite-ray-", dir=_short()))
    mine = psutil.Process()
    before = set(mine.children(recursive=True))
    try:
        try:
            with _signals_kept():
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    num_gpus=gpus,
                    object_store_memory=max(STORE_BYTES, store_bytes),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    _temp_dir=str(folder),
                )
        except Exception as error:  # Ray's own reasons have no common type
            raise UnreachableError(
                f"Ray did not start ({str(error).splitlines()[0]:.200})",
                allowed=f"a machine with {max(STORE_BYTES, store_bytes) >> 20} MiB of shared memory and some rest",
                next_step="again when the machine is less busy, or simulation.backend=local",
            ) from None
        yield
    finally:
        left = set(mine.children(recursive=True)) - before
        ray.shutdown()
        _end(left)
        shutil.rmtree(folder, ignore_errors=True)


def _end(processes: set[psutil.Process]) -> None:
    """Wait for what Ray started, and end by its id whatever is still there."""
    _, alive = psutil.wait_procs(processes, timeout=END_S)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                _log.warning("process %s of Ray did not end by itself", process.pid)
                process.kill()
    psutil.wait_procs(alive, timeout=END_S)


def _short() -> str | None:
    """A folder for temporary files whose path leaves room for the names of Ray's sockets; None: the usual one."""
    usual = tempfile.gettempdir()
    return "/tmp" if len(usual) > _SOCKET_ROOM and os.access("/tmp", os.W_OK) else None  # noqa: S108


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM over when it starts: who runs us has set it to what they mean."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
