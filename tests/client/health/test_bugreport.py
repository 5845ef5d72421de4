"""The bug report: secrets planted in every file, log and name of a site are nowhere in it, and it still helps."""

from __future__ import annotations

import io
import json
import stat
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.client.consent import pause
from fedsite.client.consent.approvals import FOLDER, Approvals
from fedsite.client.health import bugreport, last_check, scrub
from fedsite.client.ledger.budget import Budget
from fedsite.privacy.accounting import Spend
from fedsite.protocol import documents
from fedsite.protocol.tokens import PREFIX
from tests.cli.test_site_commands import fedsite, join_on_disk
from tests.client.conftest import Centre

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
TOKEN = PREFIX + "eyJhZGRyZXNzIjoicGxhbnRlZCJ9.c2lnbmF0dXJl"
SECRETS = (
    TOKEN, "MC4CAQAwBQYDK2VwBCIEIPLANTEDKEY", "98.7654321", "-273.150017", "4711081599", "Zaphod", "Beeblebrox-42",
    "patient_zx81", "xylophone", "hunter2", "s3cr3t!", "/home/zaphod", "zaphod.example.org", "TT-101", "10.11.12.13",
)  # fmt: skip
MIXED = " ".join(SECRETS)


def planted(home: Path) -> Path:
    """A site with secrets wherever a text, a name or a number can stand."""
    directory = join_on_disk(home)
    (directory / "site.yaml").write_text(
        "data:\n"
        "  path: /home/zaphod/Beeblebrox-42/patient_zx81.csv\n  site: Zaphod\n"
        "  columns: {xylophone: TT-101, hunter2: 's3cr3t!'}\n"
        "  tasks: {Zaphod: {path: /home/zaphod/xylophone, site: Beeblebrox-42}}\n"
        "policy: {tasks: [pump, xylophone, Zaphod], epsilon_max: 8}\n"
    )
    spend = Spend(noise_multiplier=20.0, sampling_rate=1.0, steps=4)
    budget = Budget(directory / "budget.db")
    budget.reserve(
        run_id="01ARZ3NDEKTSV4RRFFQ69G5FAV", unit="entity", source="/home/zaphod/patient_zx81.csv", task="xylophone",
        plan_hash=TOKEN, spends=[spend], epsilon=1.0, delta=1e-5, now="2026-03-01T12:00:00Z",
    )  # fmt: skip
    budget.close()
    pause.begin(directory, None, "Zaphod said hunter2", NOW)
    last_check.keep(directory, "xylophone", ["range", "Zaphod", "4711081599"], NOW)
    Approvals(directory / FOLDER).note(Centre().plan(), "2026-03-01T12:00:00Z")
    for folder in (
        "outbox/01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "outbox/unsent",
        "slots/a",
        "audit",
        "contract",
        "Zaphod",
        "logs",
    ):
        (directory / folder).mkdir(parents=True, exist_ok=True)
        (directory / folder / "patient_zx81.json").write_text(MIXED)
    for name in (
        "agent.json",
        "epsilon.json",
        "tls.pem",
        "tls.key",
        "node.key",
        "ca.crt",
        "site.crt",
        "site.signed.json",
    ):
        (directory / name).write_text(json.dumps({"state": MIXED, "error": MIXED, "round": 4711081599}))
    (directory / "Zaphod hunter2").write_text(MIXED)
    (directory / "xylophone").symlink_to("/home/zaphod")
    (directory / "logs" / "worker.log").write_text(log())
    (directory / "logs" / "Zaphod.log").write_text(log())
    (directory / "logs" / "scoring.log").symlink_to(directory / "identity.key")
    (home / "logs").mkdir()
    (home / "logs" / "error-20260301T120000Z-17.log").write_text(log())
    return directory


def log() -> str:
    source = Path(bugreport.__file__)
    return "\n".join(
        [
            f"2026-03-01 12:00:00,123 WARNING instruction refused (budget): {MIXED}",
            f"2026-03-01 12:00:00,123 ERROR file /home/zaphod/x.csv: column TT-101 holds 98.7654321 {TOKEN}",
            "Traceback (most recent call last):",
            f'  File "{source}", line 17, in zaphod_hunter2',
            '    password = "hunter2"',
            '  File "/home/zaphod/xylophone.py", line 4711, in Zaphod',
            f'  File "{source.parent}/../Zaphod.py", line 12',
            f"KeyError: 'patient_zx81' {MIXED}",
            "MC4CAQAwBQYDK2VwBCIEIPLANTEDKEY",
            "\x1b[31mZaphod\x1b[0m \x00\xff hunter2xylophone s3cr3t!s3cr3t!",
            MIXED * 100,
        ]
    )


def text_of(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        found = {}
        for member in archive.getmembers():
            assert member.isfile()
            file = archive.extractfile(member)
            assert file is not None
            found[member.name.removeprefix("fedsite-bugreport/")] = file.read().decode()
        return found


@pytest.mark.parametrize("damaged", ["", "site.yaml", "budget.db", "site.json", "identity.key", "federation.json"])
def test_no_secret_of_any_file_is_in_the_archive(tmp_path: Path, damaged: str) -> None:
    directory = planted(tmp_path / "home")
    keys = [(directory / "identity.key").read_text()]
    if damaged:
        (directory / damaged).write_text(f"{{{MIXED}")
    path = tmp_path / "report.tar.gz"
    done = fedsite(tmp_path / "home", "bugreport", str(path))
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    members = text_of(path)
    assert set(members) == {
        "versions.json",
        "settings.json",
        "state.json",
        "files.json",
        "logs/worker.log",
        "logs/error-20260301T120000Z-17.log",
    }
    everything = "\n".join([*members, *members.values()])
    for secret in (*SECRETS, *keys, *keys[0].split(), "alpha", "localhost"):
        for part in (secret, secret.lower(), secret.rstrip("!")):
            assert part not in everything, f"{part!r} of {secret!r}"
    for word in ("zaphod", "beeblebrox", "hunter", "xylophone", "planted", "eyj", "4711"):
        assert word not in everything.lower()


def test_it_still_helps(tmp_path: Path) -> None:
    planted(tmp_path)
    members = bugreport.gather(tmp_path / "site", NOW)
    assert json.loads(members["versions.json"])["packages"]["fedsite"]
    told = json.loads(members["settings.json"])
    assert told["policy"]["epsilon_max"] == 8.0
    assert told["policy"]["minimum_protection"] == "sealed"
    assert (told["policy"]["tasks"], told["data"]["tasks"], told["data"]["columns"]) == (3, 1, 2)
    assert (told["data"]["path"], told["data"]["site"]) == ("….csv", "given")
    state = json.loads(members["state.json"])
    assert (state["joined"], state["agent"], state["paused"]) == (True, "stopped", True)
    assert state["runs"] == {"open": 1, "finished": 0, "waiting": 1}
    assert ["range"] in state["contracts"]
    codes = {finding["code"] for finding in state["findings"]}
    assert {"agent", "approval", "paused", "contract"} <= codes
    files = json.loads(members["files.json"])
    assert files["known"]["identity.key"]["mode"] == "0o600"
    assert files["known"]["outbox"]["files"] == 2
    assert files["other"] >= 4  # told by number only
    lines = members["logs/worker.log"].decode().splitlines()
    assert lines[0].startswith("2026-03-01 12:00:00,123 WARNING instruction refused (budget): ")
    assert lines[2] == "Traceback (most recent call last):"
    assert lines[3] == '  File "client/health/bugreport.py", line 17'
    assert lines[5] == '  File "·", line ·'
    assert any(line.startswith("KeyError: '·") for line in lines)


def test_a_host_that_never_joined_has_a_report_too(tmp_path: Path) -> None:
    path = tmp_path / "report.tar.gz"
    done = fedsite(tmp_path / "home", "bugreport", str(path), "--json")
    value = json.loads(done.stdout)
    assert (done.returncode, value["schema"], value["bytes"]) == (0, "fedsite.bugreport/1", path.stat().st_size)
    assert [item["name"] for item in value["members"]] == list(text_of(path))
    assert not (tmp_path / "home").exists()
    again = fedsite(tmp_path / "home", "bugreport", str(path))
    assert again.returncode == 2
    assert "is there already" in again.stderr
    missing = fedsite(tmp_path / "home", "bugreport", str(tmp_path / "nowhere" / "x.tar.gz"))
    assert missing.returncode == 9


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=500))
def test_only_words_of_ours_and_marks_survive_whatever_a_log_holds(data: bytes) -> None:
    known = scrub.vocabulary()
    for line in scrub.scrub(data).splitlines():
        rest = scrub._TIME.sub("", line, count=1)
        for token in scrub._TOKEN.findall(rest):
            if not token.isspace() and token not in scrub._PLAIN and token != scrub.CUT:
                assert token in known


@given(st.integers(), st.floats(allow_nan=False))
def test_numbers_never_survive(whole: int, value: float) -> None:
    assert not any(letter.isdigit() for letter in scrub.scrub(f"the value is {whole} or {value!r}".encode()))


def test_a_long_log_is_cut_at_its_beginning() -> None:
    shown = scrub.scrub(b"budget\n" * 1_000_000)
    assert len(shown) <= scrub.LIMIT + 100


def test_the_archive_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedsite.protocol.storage.os.fsync", full)
    done = fedsite(tmp_path / "home", "bugreport", str(tmp_path / "x.tar.gz"))
    assert done.returncode == 9
    assert list(tmp_path.glob("*.gz")) == []
    assert list(tmp_path.glob(".*")) == []


def test_members_are_read_by_any_tar(tmp_path: Path) -> None:
    size = bugreport.write(tmp_path / "x.tar.gz", {"a.json": documents.canonical({"a": 1})}, NOW)
    data = (tmp_path / "x.tar.gz").read_bytes()
    assert len(data) == size
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["fedsite-bugreport/a.json"]
