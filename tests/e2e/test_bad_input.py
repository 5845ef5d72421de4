"""Bad input through the real command line: its exit code, what was found, what is allowed, what to type next."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedsite.protocol import instants, tokens
from fedsite.protocol.federation import Federation as Document
from fedsite.protocol.keys import SigningKey
from fedsite.server import home as homes
from tests.e2e import toy
from tests.e2e.federation import Federation, command

USAGE, DATA, TRUST, UNREACHABLE, STORAGE = 2, 3, 4, 5, 9


def _refused(done: Any, code: int, *words: str) -> None:
    """The command ended with `code` and said all of `words`, as an error for people and not as a traceback."""
    said = done.stdout + done.stderr
    assert done.code == code, said
    for word in words:
        assert word in said, f"{word!r} is not in: {said}"
    assert "next:" in said, said
    assert "Traceback" not in said


def _join(federation: Federation, home: Path, token: str) -> Any:
    done = federation.cli("join", "-", "--name", home.name, home=home, stdin=token + "\n")
    # Keys may wait for another try; what says "this host has joined" may not be there.
    if done.code != 0:
        assert not (home / "site" / "site.json").exists()
        assert not list(home.rglob("*.tmp"))
    return done


def _document(federation: Federation) -> Document:
    return Document.parse((federation.state / "federation.json").read_bytes())


def test_an_expired_a_used_and_a_forged_token(federation: Federation, tmp_path: Path) -> None:
    document, key = _document(federation), SigningKey.load(federation.state / "signing.key")
    past = instants.now() - timedelta(hours=2)
    expired = tokens.create(document, key, expires_s=3600, now=past)
    _refused(_join(federation, tmp_path / "late", expired), TRUST, "expired", "fedsite token create")

    used = federation.token()
    assert _join(federation, tmp_path / "first", used).code == 0
    _refused(_join(federation, tmp_path / "second", used), TRUST, "used", "fedsite token create")

    forged = tokens.create(document, SigningKey.generate(), expires_s=3600, now=instants.now())
    _refused(_join(federation, tmp_path / "forger", forged), TRUST, "token")
    _refused(_join(federation, tmp_path / "typo", "fedsite-hello"), TRUST, "token")
    names = {site["name"] for site in federation.cli("sites", "list", "--json").value["sites"]}
    assert names & {"late", "second", "forger", "typo"} == set()


def test_a_server_that_is_not_there_or_is_not_ours(federation: Federation, tmp_path: Path) -> None:
    from tests.e2e.federation import free_port

    other = homes.ServerHome(tmp_path / "server")
    for name, port, code, words in (
        ("nobody", free_port(), UNREACHABLE, ("no answer from 127.0.0.1",)),
        ("stranger", federation.port, TRUST, ("not the one this token is for",)),
    ):
        shutil.rmtree(other.path, ignore_errors=True)
        document = homes.create(other, name=name, address=f"127.0.0.1:{port}", now=instants.now())
        token = tokens.create(document, other.signing_key(), expires_s=3600, now=instants.now())
        started = time.monotonic()
        _refused(_join(federation, tmp_path / name, token), code, *words)
        assert time.monotonic() - started < 60  # it does not wait for ever


def test_an_agent_with_the_certificate_of_another_federation(federation: Federation, tmp_path: Path) -> None:
    other = homes.ServerHome(tmp_path / "other")
    homes.create(other, name="other", address="127.0.0.1:9443", now=instants.now())
    home = federation.copy_site("alpha", tmp_path / "site-home")
    # The foreign authority's own certificate stands in for any that it could issue.
    (home / "site" / "tls.pem").write_bytes(other.tls_key.read_bytes() + other.tls_certificate.read_bytes())
    agent = federation.popen("up", home=home)
    try:
        code = agent.wait(timeout=60)
    except subprocess.TimeoutExpired:
        agent.kill()
        raise AssertionError((home / "up.stderr").read_text()) from None
    said = (home / "up.stderr").read_text()
    assert code == TRUST, said
    assert "certificate" in said
    assert "next:" in said
    assert "Traceback" not in said


def _without(column: str) -> Callable[[list[toy.Row]], Iterable[toy.Row]]:
    return lambda rows: [{key: value for key, value in row.items() if key != column} for row in rows]


def _with(column: str, value: object, every: int = 1) -> Callable[[list[toy.Row]], Iterable[toy.Row]]:
    return lambda rows: [row | {column: value} if index % every == 0 else row for index, row in enumerate(rows)]


BROKEN: dict[str, tuple[Callable[[list[toy.Row]], Iterable[toy.Row]], tuple[str, ...]]] = {
    "a missing column": (_without("pressure"), ("pressure", "toy.csv", "data.columns")),
    "a misspelt column": (
        lambda rows: [{"presure" if key == "pressure" else key: value for key, value in row.items()} for row in rows],
        ("pressure", "presure"),
    ),
    "out of range": (_with("temperature", 4000, 40), ("temperature", "4000", "0 to 100 degC")),
    "another unit": (
        lambda rows: [row | {"temperature": float(str(row["temperature"])) + 273.15} for row in rows],
        ("temperature", "K", "0 to 100 degC"),
    ),
    "all NaN": (_with("pressure", ""), ("pressure", "no value", "0 to 10 bar")),
    "text among numbers": (_with("pressure", "broken", 50), ("pressure", "broken")),
    "too few windows": (lambda rows: rows[:12], ("window", "20")),
    "no rows": (lambda rows: [], ("toy.csv",)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_data_that_breaks_the_contract(name: str, tmp_path: Path) -> None:
    change, words = BROKEN[name]
    task, data = toy.write(tmp_path, change)
    done = Federation(tmp_path).cli("data", "check", str(task), f"data.path={data}", home=tmp_path / "home")
    _refused(done, DATA, *words)


def test_data_that_cannot_be_read(tmp_path: Path) -> None:
    task, data = toy.write(tmp_path)
    site = Federation(tmp_path)
    missing = site.cli("data", "check", str(task), f"data.path={tmp_path}/none.csv", home=tmp_path / "home")
    _refused(missing, DATA, "none.csv", "data.path=")
    data.with_suffix(".parquet").write_bytes(b"PAR1 this is no parquet file")
    nonsense = site.cli("data", "check", str(task), f"data.path={data.with_suffix('.parquet')}", home=tmp_path / "home")
    _refused(nonsense, DATA, "toy.parquet")


def test_a_task_or_override_that_does_not_exist_names_the_nearest(federation: Federation, tmp_path: Path) -> None:
    before = sorted((federation.state / "runs").glob("*"))
    for arguments, words in (
        (("launch", "task=pmup"), ("pmup", "pump")),
        (("launch", "rounds.cuont=3"), ("rounds.cuont", "rounds.count")),
        (("launch", "rounds.count=many"), ("rounds.count", "many")),
        (("launch", "rounds.count=0"), ("0",)),
        (("launch", "privacy=sample", "privacy.epsilon=-1"), ("epsilon",)),
        (("launch", "privacy=smaple"), ("smaple", "sample")),
        (("launch", "strategy=fedavgg"), ("fedavgg", "fedavg")),
        (("lanuch",), ("lanuch", "launch")),
        (("runs", "show", "01XX"), ("01XX",)),
        (("data", "check", "engin_rul"), ("engin_rul", "engine_rul")),
    ):
        _refused(federation.cli(*arguments), USAGE, *words)
    broken = tmp_path / "broken.yaml"
    broken.write_text("schema: fedsite.task/1\nname: [toy\nchannels: }")
    _refused(federation.cli("launch", f"task_file={broken}"), USAGE, "broken.yaml", "line")
    assert sorted((federation.state / "runs").glob("*")) == before


def test_a_site_file_that_is_malformed_or_wrong(federation: Federation, tmp_path: Path) -> None:
    home = federation.copy_site("alpha", tmp_path / "home")
    settings = home / "site" / "site.yaml"
    for text, words in (
        ("data: {path: [\n", ("site.yaml", "line")),
        ("policy: {epsilon_mx: 3}\n", ("site.yaml", "epsilon_mx", "epsilon_max")),
        ("policy: {epsilon_max: lots}\n", ("site.yaml", "epsilon_max", "lots")),
    ):
        settings.write_text(text)
        for arguments in (("up",), ("data", "check", "pump")):
            done = federation.cli(*arguments, home=home)
            assert done.code in (USAGE, DATA), done.stderr
            _refused(done, done.code, *words)
        # A screen that only reads shows all it can, and this among it; doctor is the one that judges.
        shown = federation.cli("status", home=home)
        assert shown.code == 0, shown.stderr
        assert all(word in shown.stdout for word in ("certificate", *words)), shown.stdout
        assert federation.cli("doctor", home=home).code == USAGE


def test_before_anything_is_set_up_each_command_says_what_comes_first(tmp_path: Path) -> None:
    nothing = Federation(tmp_path)
    for arguments, words in (
        (("up",), ("fedsite join",)),
        (("status",), ("fedsite join",)),
        (("score",), ("fedsite join",)),
        (("server", "up"), ("fedsite server init",)),
        (("token", "create"), ("fedsite server init",)),
        (("launch", "task=pump"), ("fedsite server init",)),
    ):
        _refused(nothing.cli(*arguments), USAGE, *words)
    assert nothing.cli("server", "init", "--address", "127.0.0.1:9443").code == 0
    _refused(nothing.cli("launch", "task=pump"), UNREACHABLE, "fedsite server up")


def _on_a_full_disk(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command whose FEDSITE_HOME is a disk of 16 kB; then list what it left there."""
    folder.mkdir()
    script = (
        f"mount -t tmpfs -o size=16k none {folder} || exit 77; "
        f"FEDSITE_HOME={folder}/home \"$@\"; code=$?; find {folder} -name '*.tmp' -o -name site.json "
        "-o -type f -size 0 | sed 's/^/left: /'; exit $code"
    )
    line = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", *command(*arguments)]
    if shutil.which("unshare") is None:
        pytest.skip("unshare is missing (util-linux)")
    done = subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=120)
    if done.returncode in (1, 77) and ("unshare" in done.stderr or "mount:" in done.stderr):
        pytest.skip("this system lets no user mount a file system of their own (user namespaces are off)")
    return done


def test_a_full_disk_is_named_and_leaves_nothing_half_written(federation: Federation, tmp_path: Path) -> None:
    for name, arguments, stdin in (
        ("central", ("server", "init", "--address", "127.0.0.1:9443"), ""),
        ("site", ("join", "-", "--name", "full"), federation.token() + "\n"),
    ):
        done = _on_a_full_disk(tmp_path / name, *arguments, stdin=stdin)
        assert done.returncode == STORAGE, done.stdout + done.stderr
        assert "No space left" in done.stderr
        assert "next:" in done.stderr
        assert "Traceback" not in done.stderr
        assert "left:" not in done.stdout
