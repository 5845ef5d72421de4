"""The worker as a real process: answers, failures with a code, crashes, silence, and an end with its agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.client.work import memory, pipe
from fedsite.client.work.worker import answer_to
from fedsite.client.work.worker_link import WorkerError, WorkerLink
from fedsite.protocol.errors import RefusalCode

# A worker with operations of its own, over the same serving code.
SCRIPT = """
import os, sys, time
from fedsite.client.work import lifeline
from fedsite.client.work import memory
from fedsite.client.work import pipe
from fedsite.client.work import worker
from fedsite.telemetry.errors import Code, TelemetryError

def echo(arguments, blobs):
    print("a stray print")
    return pipe.Message(header={"heard": arguments, "pid": os.getpid()}, blobs=blobs)
def fail(arguments, blobs):
    raise TelemetryError("file x.csv is missing", allowed="a file", code=Code.MISSING)
def broken(arguments, blobs):
    raise ValueError("17.3")
def crash(arguments, blobs):
    os._exit(3)
def sleep(arguments, blobs):
    time.sleep(60)
def bomb(arguments, blobs):
    return pipe.Message(header={}, blobs={"x": b"x" * (1 << 40)})
def abort(arguments, blobs):
    os.abort()
def rest():
    print("at rest")
    raise ValueError("nobody's")

lifeline.die_with(int(sys.argv[1]))
memory.limit(int(sys.argv[2]))
answers = worker.answers_apart()
lifeline.end_with_pipe(0)
worker.serve(os.fdopen(0, "rb", closefd=False), answers,
             {"echo": echo, "fail": fail, "broken": broken, "crash": crash, "sleep": sleep,
              "bomb": bomb, "abort": abort}, rest)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def link(script: Path, tmp_path: Path) -> Iterator[WorkerLink]:
    opened = WorkerLink(
        tmp_path / "worker.log", idle_s=60.0, memory_bytes=1 << 29, command=(sys.executable, str(script))
    )
    yield opened
    opened.close()


@given(
    header=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
    blobs=st.dictionaries(st.text(max_size=5), st.binary(max_size=20), max_size=3),
)
def test_a_message_comes_back_whole_or_not_at_all(header: dict[str, object], blobs: dict[str, bytes]) -> None:
    data = b"".join(pipe.encode(pipe.Message(header=header, blobs=blobs)))
    assert pipe.decode(BytesIO(data).read) == pipe.Message(header=header, blobs=blobs)
    with pytest.raises(pipe.PipeError):
        pipe.decode(BytesIO(data[:-1]).read)


def test_what_is_no_message_is_refused() -> None:
    for data in (b"\xff" * 40, b"\0\0\0\2\0\0\0\0\0\0\0\0[]", b"\0\0\0\1\0\0\0\0\0\0\0\0x"):
        with pytest.raises(pipe.PipeError):
            pipe.decode(BytesIO(data).read)


def test_it_stays_warm_and_carries_large_blobs(link: WorkerLink) -> None:
    blob = os.urandom(3 << 20)  # more than a pipe holds, both ways
    first = link.call("echo", {"a": [1, 2]}, {"model": blob}, timeout_s=60)
    assert first.header["heard"] == {"a": [1, 2]}
    assert first.blobs["model"] == blob
    assert link.call("echo", {}, {}, timeout_s=60).header["pid"] == first.header["pid"] == link.pid
    assert "a stray print" in link.log_path.read_text()


def test_failures_carry_a_code_and_the_worker_lives_on(link: WorkerLink) -> None:
    with pytest.raises(WorkerError, match=r"x\.csv") as missing:
        link.call("fail", {}, {}, timeout_s=60)
    assert missing.value.refusal == RefusalCode.DATA_MISSING
    with pytest.raises(WorkerError) as broken:
        link.call("broken", {}, {}, timeout_s=60)
    assert broken.value.refusal == RefusalCode.INTERNAL
    with pytest.raises(WorkerError):
        link.call("unknown", {}, {}, timeout_s=60)
    assert link.call("echo", {}, {}, timeout_s=60).header["pid"]


def test_a_crash_is_an_error_and_the_next_call_has_a_new_worker(link: WorkerLink) -> None:
    with pytest.raises(WorkerError, match="crash"):
        link.call("crash", {}, {}, timeout_s=60)
    assert link.pid is None
    assert link.call("echo", {}, {}, timeout_s=60).header["pid"] == link.pid


def test_a_memory_bomb_is_refused_by_name_and_the_next_call_has_a_worker_with_its_memory_whole(
    link: WorkerLink,
) -> None:
    pid = link.call("echo", {}, {}, timeout_s=60).header["pid"]
    with pytest.raises(WorkerError, match="more memory") as error:
        link.call("bomb", {}, {}, timeout_s=60)
    assert error.value.refusal == RefusalCode.TOO_LARGE
    assert "worker_memory" in error.value.allowed
    assert _gone(pid)
    assert link.call("echo", {}, {}, timeout_s=60).header["pid"] == link.pid


def test_a_library_that_aborts_is_a_failure_that_names_the_signal(link: WorkerLink) -> None:
    with pytest.raises(WorkerError, match="signal 6") as error:
        link.call("abort", {}, {}, timeout_s=60)
    assert error.value.refusal == RefusalCode.INTERNAL


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA bounds mappings on Linux only")
@pytest.mark.parametrize(
    "bomb",
    [
        "import torch; torch.zeros(1 << 40)",
        "import torch; kept = []\nwhile True: kept.append(torch.zeros(1 << 20))",
        "import numpy; kept = []\nwhile True: kept.append(numpy.ones(1 << 20))",
        "kept = []\nwhile True: kept.append(bytes(1 << 20))",
    ],
)
def test_the_bound_holds_whoever_allocates(bomb: str) -> None:
    code = f"from fedsite.client.work import memory\nmemory.limit({1 << 29})\ntry:\n  exec({bomb!r})\n"
    code += "except Exception as error:\n  print(memory.exhausted(error))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "True", done.stderr


def test_an_error_that_came_from_exhaustion_is_one() -> None:
    outer = ValueError("the calibration graph does not run")
    outer.__cause__ = RuntimeError("std::bad_alloc")
    assert memory.exhausted(outer)
    assert not memory.exhausted(ValueError("3 windows"))
    assert memory.default() >= 1 << 30


def test_rest_comes_after_the_answer_and_what_it_raises_is_nobodys(link: WorkerLink) -> None:
    first = link.call("echo", {}, {}, timeout_s=60).header["pid"]
    assert link.call("echo", {}, {}, timeout_s=60).header["pid"] == first
    assert "at rest" in link.log_path.read_text()


def test_a_worker_killed_between_calls_is_replaced(link: WorkerLink) -> None:
    pid = link.call("echo", {}, {}, timeout_s=60).header["pid"]
    os.kill(pid, signal.SIGKILL)
    _wait_until(lambda: link.pid is None)  # its threads end one by one: the process is gone when it can be reaped
    assert link.call("echo", {}, {}, timeout_s=60).header["pid"] != pid


def test_a_silent_worker_is_killed_at_the_deadline(link: WorkerLink) -> None:
    pid = link.call("echo", {}, {}, timeout_s=60).header["pid"]
    with pytest.raises(WorkerError, match="no answer in time"):
        link.call("sleep", {}, {}, timeout_s=0.2)
    assert _gone(pid)


def test_interrupt_ends_a_call_at_once(link: WorkerLink) -> None:
    import threading

    link.call("echo", {}, {}, timeout_s=60)
    timer = threading.Timer(0.2, link.interrupt)
    timer.start()
    with pytest.raises(WorkerError, match="closed"):
        link.call("sleep", {}, {}, timeout_s=60)
    timer.join()


def test_an_idle_worker_ends_and_gives_its_memory_back(script: Path, tmp_path: Path) -> None:
    now = [0.0]
    command = (sys.executable, str(script))
    link = WorkerLink(tmp_path / "worker.log", idle_s=300.0, command=command, clock=lambda: now[0])
    pid = link.call("echo", {}, {}, timeout_s=60).header["pid"]
    now[0] = 299.0
    assert not link.close_if_idle()
    now[0] = 301.0
    assert link.close_if_idle()
    assert _gone(pid)
    assert not link.close_if_idle()


def test_kill_minus_nine_of_the_agent_ends_a_worker_in_the_middle_of_work(script: Path, tmp_path: Path) -> None:
    agent = f"""
import sys, threading
from pathlib import Path
from fedsite.client.work.worker_link import WorkerLink
link = WorkerLink(Path({str(tmp_path / "worker.log")!r}), idle_s=60, command=(sys.executable, {str(script)!r}))
print(link.call("echo", {{}}, {{}}, timeout_s=60).header["pid"], flush=True)
link.call("sleep", {{}}, {{}}, timeout_s=60)
"""
    parent = subprocess.Popen([sys.executable, "-c", agent], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _wait_until(lambda: _gone(pid))


def test_an_answer_never_raises() -> None:
    answer = answer_to(pipe.Message(header={}), {})
    assert answer.header["ok"] is False
    assert answer.header["code"] == "internal"


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    # A child of ours that ended and was not waited for, or one that is about to be reaped elsewhere.
    return state == "Z"


def _wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until, "the process lives on"
        time.sleep(0.02)
