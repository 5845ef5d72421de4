"""A whole sealed run with a site that has no network: the test is the courier, and carries files both ways."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedsite.protocol import instants
from fedsite.protocol.exchange_medium import write_parcel
from fedsite.server.audit_log import nowhere
from fedsite.server.carried import parcels
from fedsite.server.home import ServerHome
from tests.e2e import toy
from tests.e2e.toy_federation import Toys


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toys]:
    with Toys(tmp_path_factory.mktemp("carried")) as federation:
        yield federation


def _enrol(toys: Toys, name: str) -> Path:
    """Join by file, and give the site its data."""
    home, stick = toys.site_home(name), toys.directory
    asked, answer = stick / f"{name}.request", stick / f"{name}.answer"
    words = ("join", "-", "--name", name, "--request", str(asked), "--json")
    done = toys.cli(*words, home=home, stdin=toys.token() + "\n")
    assert done.code == 0, done.stderr
    assert asked.stat().st_mode & 0o077 == 0
    done = toys.cli("sites", "admit", str(asked), "--answer", str(answer), "--json")
    assert done.code == 0, done.stderr
    assert done.value["name"] == name
    for already in (False, True):
        done = toys.cli("join", "--answer", str(answer), "--json", home=home)
        assert (done.code, done.value["already"]) == (0, already), done.stderr
    toy.write(toys.directory)
    settings = f"data: {{path: {toys.directory / 'toy.csv'}}}\npolicy: {{require_privacy: false}}\n"
    (home / "site" / "site.yaml").write_text(settings)
    return home


def _carry(toys: Toys, name: str, *, twice: bool = False) -> list[dict[str, Any]]:
    """One trip to the site and back; what the site did.

    The server's half runs in this process: it is what the commands do, seconds sooner.
    """
    home, stick = toys.site_home(name), toys.directory / "stick"
    server = ServerHome(toys.state)
    exported = parcels.export(server, name, instants.now())
    if exported.data is None:
        time.sleep(0.2)
        return []
    write_parcel(stick, exported.data)
    imported = toys.cli("exchange", "import", str(stick), "--json", home=home)
    assert imported.code == 0, imported.stderr
    if twice:
        before = (home / "site" / "budget.db").stat().st_mtime_ns
        again = toys.cli("exchange", "import", str(stick), "--json", home=home)
        assert {message["state"] for message in again.value["messages"]} == {"before"}
        assert (home / "site" / "budget.db").stat().st_mtime_ns == before
    exported_back = toys.cli("exchange", "export", str(stick), "--json", home=home)
    assert exported_back.code == 0, exported_back.stderr
    taken = parcels.take_in(server, stick.read_bytes(), instants.now(), nowhere)
    assert taken.taken + taken.closed == len(exported_back.value["messages"])
    return list(imported.value["messages"])


def test_the_commands_of_the_central_team_say_what_there_is(toys: Toys) -> None:
    _enrol(toys, "rock")
    nothing = toys.cli("server", "exchange", "export", "rock", str(toys.directory / "none"), "--json")
    assert (nothing.code, nothing.value["file"]) == (0, None)
    (toys.directory / "note").write_text("hello")
    for home, words in ((toys.home, ("server", "exchange")), (toys.site_home("rock"), ("exchange",))):
        refused = toys.cli(*words, "import", str(toys.directory / "note"), "--json", home=home)
        assert (refused.code, "no file of messages" in refused.stderr) == (2, True), refused.stderr
    for words, carried in ((("carry", "rock", "--off"), False), (("carry", "rock"), True)):
        assert toys.cli("sites", *words, "--json").value["carried"] is carried
    done = toys.cli("sites", "revoke", "rock", "--json")
    assert done.value["state"] == "revoked"


@pytest.mark.slow
def test_a_carried_site_takes_part_in_a_sealed_run(toys: Toys) -> None:
    toys.site("north")
    island = _enrol(toys, "island")
    toys.wait_online("north")
    states = {site["name"]: site["state"] for site in toys.cli("sites", "list", "--json").value["sites"]}
    assert states.items() >= {"north": "online", "island": "carried"}.items()
    words = ("rounds.count=1", "rounds.minimum=2", "rounds.goal=2", "rounds.deadline_s=100", "rounds.wait_s=100")
    run_id = toys.launch("privacy=sample", "privacy.epsilon=8", "protection=sealed", *words)
    watch, done = toys.watch(run_id), []
    while not any(event["kind"] == "finished" for event in watch.events):
        done += _carry(toys, "island", twice=not done)
    done += _carry(toys, "island")
    result = toys.result(run_id)
    assert result["outcome"] == "completed", result["reason"]
    assert {(item["kind"], item["outcome"]) for item in done} >= {("prepare", "ok"), ("train", "ok"), ("finish", "ok")}
    sites = {site["name"]: site for site in result["sites"]}
    assert sites["north"]["rounds"] == sites["island"]["rounds"] == [{"number": 1, "outcome": "ok"}]
    assert sites["north"]["epsilon"] == sites["island"]["epsilon"] > 0
    runs = [toys.cli("privacy", "--json", home=toys.site_home(name)).value["runs"] for name in ("north", "island")]
    spent = [[(run["run_id"], run["epsilon_spent"], run["releases"]) for run in found] for found in runs]
    assert spent[0] == spent[1]
    assert runs[1][0]["state"] == "finished"
    verified = toys.cli("audit", "verify", "--json", home=island)
    assert verified.code == 0, verified.stderr
