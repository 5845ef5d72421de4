"""Supervision: restarts with growing pauses, an end to restarting, and nobody left behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from fedsite.protocol.errors import FedsiteError
from fedsite.server.children import Child, restart_pause, stop_all


def test_pauses_grow_with_recent_deaths_and_end_at_the_fifth() -> None:
    assert [restart_pause(list(range(n)), n - 1.0) for n in range(1, 6)] == [0.25, 0.5, 1.0, 2.0, None]
    # Deaths of more than a minute ago do not count.
    assert restart_pause([0, 1, 2, 3, 100], 100.0) == 0.25


def _child(tmp_path: Path, program: str) -> Child:
    return Child(
        name="child", command=lambda: [sys.executable, "-c", program], environment=os.environ, log=tmp_path / "log"
    )


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_dead_child_is_restarted_after_its_pause_and_given_up_at_the_fifth_death(tmp_path: Path) -> None:
    child = _child(tmp_path, "raise SystemExit(3)")
    child.start()
    for death in range(4):
        child.process.wait()
        assert not child.check(100.0 + 10 * death)
        assert child.check(105.0 + 10 * death)
    child.process.wait()
    with pytest.raises(FedsiteError, match=r"5 times.*last with 3"):
        child.check(140.0)


def test_stopping_ends_grandchildren_and_those_who_do_not_listen(tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    deaf = "import signal,time;signal.signal(signal.SIGTERM,signal.SIG_IGN);print('up',flush=True);time.sleep(60)"
    program = (
        "import os,subprocess,sys,time;"
        f"grandchild=subprocess.Popen([sys.executable,'-c',{deaf!r}],stdout=subprocess.PIPE);"
        "grandchild.stdout.readline();"
        f"open({str(mark) + '.tmp'!r},'w').write(f'{{os.getpid()}} {{grandchild.pid}}');"
        f"os.rename({str(mark) + '.tmp'!r},{str(mark)!r});time.sleep(60)"
    )
    child = _child(tmp_path, program)
    child.start()
    until = time.monotonic() + 30
    while not mark.exists() and time.monotonic() < until:
        time.sleep(0.02)
    pids = [int(word) for word in mark.read_text().split()]
    assert all(_alive(pid) for pid in pids)
    stop_all([child], grace_s=0.3)
    until = time.monotonic() + 10
    while any(_alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(_alive(pid) for pid in pids)
