"""The unit that `fedsite service` prints: what systemd itself says of it, and what it must never lack."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from fedsite.client.identity.service import Service, unit
from fedsite.protocol.errors import ConfigError

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is missing (apt-get install systemd)")


def _fields(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_the_agent_has_a_user_a_directory_and_bounds_of_its_own() -> None:
    fields = _fields(unit(Service(program=("/opt/fedsite/bin/fedsite",), memory_bytes=3 << 30, threads=2)))
    expected = {
        "ExecStart": "/opt/fedsite/bin/fedsite up",
        "User": "fedsite",
        "StateDirectory": "fedsite",
        "StateDirectoryMode": "0700",
        "MemoryMax": "3072M",
        "MemorySwapMax": "0",
        "CPUQuota": "300%",
        "Restart": "on-failure",
        "RestartPreventExitStatus": "2",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "UMask": "0077",
    }
    assert {key: fields[key] for key in expected} == {key: [value] for key, value in expected.items()}
    assert "Environment" in fields
    assert "FEDSITE_HOME=/var/lib/fedsite" in fields["Environment"]


def test_a_program_or_data_below_home_stays_readable_and_no_more() -> None:
    for service in (
        Service(program=("/home/ann/venv/bin/fedsite",)),
        Service(program=("/usr/bin/fedsite",), data=(Path("/home/ann/telemetry"),)),
    ):
        fields = _fields(unit(service))
        assert fields["ProtectHome"] == ["read-only"]
        assert fields["ProtectSystem"] == ["strict"]


def test_another_home_is_the_one_place_that_can_be_written() -> None:
    fields = _fields(unit(Service(program=("/usr/bin/fedsite",), home=Path("/data/my site/100%"))))
    assert fields["ReadWritePaths"] == ['"/data/my site/100%%"']
    assert '"FEDSITE_HOME=/data/my site/100%%"' in fields["Environment"]
    assert "StateDirectory" not in fields


@pytest.mark.parametrize("name", ["my site", "a:b"])
def test_a_name_that_systemd_would_part_is_a_path_and_no_state_directory(name: str) -> None:
    fields = _fields(unit(Service(program=("/usr/bin/fedsite",), home=Path("/var/lib") / name)))
    assert "StateDirectory" not in fields
    assert [word.strip('"') for word in fields["ReadWritePaths"]] == [f"/var/lib/{name}"]


def test_the_steps_can_be_copied_into_a_shell() -> None:
    home = "/srv/my site; 50%"
    text = unit(Service(program=("/opt/my venv/bin/fedsite",), home=Path(home)))
    (step,) = (line for line in text.splitlines() if "install -d" in line)
    assert shlex.split(step)[-1] == home
    (step,) = (line for line in text.splitlines() if "runuser" in line)
    assert shlex.split(step)[6:9] == [f"FEDSITE_HOME={home}", "/opt/my venv/bin/fedsite", "join"]


def test_what_lies_below_tmp_stays_visible() -> None:
    assert _fields(unit(Service(program=("/usr/bin/fedsite",))))["PrivateTmp"] == ["yes"]
    for more in ({"home": Path("/tmp/site")}, {"data": (Path("/var/tmp/telemetry.csv"),)}):
        assert _fields(unit(Service(program=("/usr/bin/fedsite",), **more)))["PrivateTmp"] == ["no"]  # type: ignore[arg-type]


@pytest.mark.parametrize("sign", ['"', "'", "\\", "$", "\n", "\x7f"])
def test_a_path_that_no_unit_can_name_is_refused(sign: str) -> None:
    path = f"/srv/a{sign}ExecStartPre=/bin/true"
    for more in ({"home": Path(path)}, {"data": (Path(path),)}, {"program": (path,)}):
        with pytest.raises(ConfigError, match="the path"):
            unit(Service(**{"program": ("/usr/bin/fedsite",), **more}))  # type: ignore[arg-type]


@needs_systemd
@pytest.mark.parametrize(
    "service",
    [
        Service(program=("/bin/true",), user="root", memory_bytes=1 << 30),
        Service(program=("/bin/sh", "-c"), user="root", home=Path("/srv/a b/50%"), data=(Path("/home/x"),)),
    ],
    ids=["usual", "odd-paths"],
)
def test_systemd_finds_no_fault_with_it(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "fedsite-agent.service"
    path.write_text(unit(service))
    assert ANALYZE is not None
    done = subprocess.run([ANALYZE, "verify", str(path)], capture_output=True, text=True, timeout=60, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "fedsite-agent" in line]
    assert ours == []


@needs_systemd
def test_systemd_calls_it_well_protected(tmp_path: Path) -> None:
    path = tmp_path / "fedsite-agent.service"
    path.write_text(unit(Service(program=("/bin/true",), memory_bytes=1 << 30)))
    assert ANALYZE is not None
    command = [ANALYZE, "security", "--offline=true", "--no-pager", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    if found is None:
        pytest.skip(f"this systemd-analyze does not read a unit's file: {done.stderr[:200]}")
    assert float(found[1]) < 2.0  # 0 is best, 10 worst; a unit without any of it has 9.6
