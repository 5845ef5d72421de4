"""A pytest that is killed leaves no process of a test behind: not the command, not the agent, not what it is to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import leftovers

# As a test does, in a process that is to be killed.
PYTEST = """
import sys
from pathlib import Path
from tests.e2e.federation import Federation
home = Path(sys.argv[1])
home.mkdir()
sleeps = [sys.executable, "-S", "-c", "import time; print(flush=True); time.sleep(600)"]
started = Federation(home).start_process(sleeps, home, home / "log", stdout=-1)
started.stdout.readline()
print("started", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not end a process with its parent")
def test_what_a_test_started_ends_with_a_pytest_that_is_killed(tmp_path: Path) -> None:
    home, root = tmp_path / "home", Path(__file__).parents[1]
    words = [sys.executable, "-c", PYTEST, str(home)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "started\n"
        assert len(leftovers.below(home)) == 1
        killed.send_signal(signal.SIGKILL)
    assert leftovers.after(home) == []
