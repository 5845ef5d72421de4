"""What every test finds, whoever runs it: the same examples, quick files, a terminal's Ctrl-C, nobody's settings."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A slow machine is no failure, and the same code gets the same answer. To look for new examples:
# python -m pytest --hypothesis-profile=explore
settings.register_profile(
    "steady",
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", parent=settings.get_profile("steady"), max_examples=500, derandomize=False)
settings.load_profile("steady")

# gRPC begins its poller anew in each child that is forked, which dies of it where it closes its files before it
# becomes another program (grpc issue 43055). No test uses gRPC in a child; this is read when gRPC is loaded.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

DATA = "FEDSITE_DATA"  # where real data is: the one setting that tests take
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
TERMINAL = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


MEMORY = Path("/dev/shm")
ROOM = 4 << 30  # bytes that a whole run never needs
TEMPORARY = "PYTEST_DEBUG_TEMPROOT"


def pytest_configure(config: pytest.Config) -> None:
    """Temporary directories in memory where there is room, and programs may run: tests wait for a disk above all.

    What a killed process has written is there as on a disk, synchronised or not.
    """
    if config.getoption("basetemp") or TEMPORARY in os.environ or not MEMORY.is_dir():
        return
    found = os.statvfs(MEMORY)
    if found.f_bavail * found.f_frsize >= ROOM and not found.f_flag & os.ST_NOEXEC and os.access(MEMORY, os.W_OK):
        os.environ[TEMPORARY] = str(MEMORY)


@pytest.fixture(scope="session", autouse=True)
def _as_from_a_terminal() -> Iterator[None]:
    """A shell's background job ignores SIGINT, and so would every process that a test starts and interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _nobodys_settings() -> Iterator[None]:
    """Neither this account's fedsite nor its proxy may be met by a test, nor its wishes for what is printed."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            ours = name.startswith("FEDSITE_") and name != DATA
            if ours or name.lower() in PROXIES or name in TERMINAL:
                patch.delenv(name)
        yield
