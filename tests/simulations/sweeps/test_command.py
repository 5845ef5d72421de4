"""`fedsite simulate` on toys: results, tables and manifest; runs that were killed go on with the same bits."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedsite.client import application
from fedsite.protocol import documents
from fedsite.protocol.errors import ConfigError, ExitCode
from fedsite.simulations.engine import Round
from fedsite.simulations.pages import page as simulation_page
from fedsite.simulations.runs import results, study, words
from fedsite.simulations.sweeps import campaign, manifest, tables
from fedsite.simulations.sweeps.manifest import Manifest
from tests import toy_study

JSON = Path(__file__).resolve().parents[3] / "docs" / "json.md"
# One good and one bad strategy, two seeds each: what fails is named, and the others go on.
SWEPT = ["strategy=fedavg,krum", "seed=range(0,2)", "protection.groups=1"]


class Looking(study.Nobody):
    """Counts what it sees, and interrupts after a round."""

    def __init__(self, *, interrupted: int = 0) -> None:
        self.rounds: list[int] = []
        self.cells: list[str] = []
        self._interrupted = interrupted

    def cell(self, number: int, of: int, name: str, state: str) -> None:
        self.cells.append(f"{number} {state}")

    def round(self, done: Round) -> None:
        self.rounds.append(done.number)
        if done.number == self._interrupted:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return toy_study.write(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="module")
def swept(toys: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest, Looking]:
    folder, looking = tmp_path_factory.mktemp("sweep") / "out", Looking()
    asked = campaign.read([*toys, *SWEPT], many=True, out=folder)
    return folder, campaign.run(asked, looking), looking


def once(toys: list[str], folder: Path, looking: Looking, *more: str) -> results.Simulation:
    asked = campaign.read([*toys, "simulation=quick", "rounds.count=4", *more], many=False, out=folder)
    known = campaign.run(asked, looking)
    return next(result for _, result in campaign.found(folder, known))


def test_a_failing_run_is_named_and_the_others_go_on(swept: tuple[Path, Manifest, Looking]) -> None:
    _, known, looking = swept
    assert [cell.state for cell in known.cells] == ["done", "done", "failed", "failed"]
    failure = known.cells[2].failure
    assert failure is not None
    assert "strategy=krum" in failure.found
    assert failure.exit_code == ExitCode.USAGE
    assert looking.cells[-2:] == ["3 running", "3 failed"]


def test_the_result_says_what_was_computed_and_how(swept: tuple[Path, Manifest, Looking]) -> None:
    folder, known, _ = swept
    found = manifest.result(folder, known.cells[0])
    assert found is not None
    assert (found.engine, found.executor, found.rounds, found.sites, found.seeds) == (
        "vectorised",
        "batched",
        3,
        5,
        (0,),
    )
    assert found.metric.central is not None
    assert found.metric.local_only is not None
    assert 0.0 <= found.metric.sites.worst <= found.metric.sites.median <= found.metric.sites.best <= 1.0  # type: ignore[union-attr]
    assert found.epsilon_max is None
    assert found.predicted_minutes is not None
    assert found.bytes_up_per_site_round > 0
    assert len(found.curve) == 3
    assert found.curve[-1].metric == found.metric.global_
    assert found.digest == known.cells[0].digest
    assert found.command.startswith("fedsite simulate ")


def test_the_document_is_read_back_and_documented(swept: tuple[Path, Manifest, Looking]) -> None:
    folder, known, _ = swept
    data = (folder / known.cells[0].folder / manifest.RESULT).read_bytes().strip()
    found = results.decode(data)
    assert results.encode(found) == data
    written = json.loads(data)
    section = JSON.read_text().partition("### `fedsite simulate`")[2].partition("\n### ")[0]
    words = set(re.findall(r"[a-z_0-9]+", section))
    for kind in (results.Simulation, results.Metric, results.Round, results.Privacy, results.Fleet, results.Spread):
        missing = {field.name.rstrip("_") for field in dataclasses.fields(kind)} - words
        assert not missing, f"docs/json.md does not tell of {missing}"
    assert set(written) == {field.name for field in dataclasses.fields(results.Simulation)}


def test_tables_hold_every_run_round_and_site(swept: tuple[Path, Manifest, Looking]) -> None:
    folder, known, _ = swept
    with (folder / "rounds.csv").open() as file:
        rounds = list(csv.DictReader(file))
    assert [(row["seed"], row["number"]) for row in rounds] == [(seed, n) for seed in "01" for n in "123"]
    runs, sites = tables.read(folder / "runs.parquet"), tables.read(folder / known.cells[0].folder / "sites.parquet")
    assert runs["strategy"] == ["fedavg", "fedavg"]
    assert sites["site"] == [f"site{number}" for number in range(5)]
    assert sum(value is not None for value in sites["local_only"]) == 5


def test_what_is_finished_is_not_run_again(toys: list[str], swept: tuple[Path, Manifest, Looking]) -> None:
    folder, _, _ = swept
    again = Looking()
    campaign.run(campaign.read([*toys, *SWEPT], many=True, out=folder), again)
    assert again.rounds == []
    assert again.cells[:2] == ["0 kept", "1 kept"]
    with pytest.raises(ConfigError, match="holds another simulation"):
        campaign.read([*toys, "seed=5"], many=False, out=folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from fedsite.simulations.sweeps import campaign
from fedsite.simulations.runs import study

class Deadly(study.Nobody):
    def cell(self, *_): pass
    def round(self, done):
        if done.number == 3:
            os.kill(os.getpid(), signal.SIGKILL)

campaign.run(campaign.read(sys.argv[2:], many=False, out=Path(sys.argv[1])), Deadly())
"""


def test_a_run_goes_on_with_the_same_bits_after_a_kill(toys: list[str], tmp_path: Path) -> None:
    # SCAFFOLD has most to remember: the model, the server's control variate, and those of the sites.
    more = ("strategy=scaffold", "simulation.checkpoint_s=0")
    whole = once(toys, tmp_path / "whole", Looking(), *more)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "part"), *toys, "simulation=quick", "rounds.count=4", *more]
    assert subprocess.run(command, check=False, timeout=600).returncode == -signal.SIGKILL
    assert not (tmp_path / "part" / manifest.RESULT).exists()
    looking = Looking()
    found = once(toys, tmp_path / "part", looking, *more)
    assert looking.rounds == [3, 4]  # the third was done, and not yet saved
    assert found.digest == whole.digest
    assert [done.metric for done in found.curve] == [done.metric for done in whole.curve]
    assert found.predicted_minutes == whole.predicted_minutes


def test_control_c_keeps_the_rounds_that_are_finished(toys: list[str], tmp_path: Path) -> None:
    whole = once(toys, tmp_path / "whole", Looking())
    with pytest.raises(KeyboardInterrupt):
        once(toys, tmp_path / "part", Looking(interrupted=3))
    looking = Looking()
    assert once(toys, tmp_path / "part", looking).digest == whole.digest
    assert looking.rounds == [4]


@pytest.mark.slow
def test_drift_in_phases_goes_on_as_in_one_go(toys: list[str], tmp_path: Path) -> None:
    more = ("simulation.drift.every=2", "simulation.drift.offset=2.0", "simulation.checkpoint_s=0")
    whole = once(toys, tmp_path / "whole", Looking(), *more)
    with pytest.raises(KeyboardInterrupt):
        once(toys, tmp_path / "part", Looking(interrupted=2), *more)
    assert once(toys, tmp_path / "part", Looking(), *more).digest == whole.digest
    assert once(toys, tmp_path / "steady", Looking()).digest != whole.digest


def test_attackers_and_a_fleet_are_told_of(toys: list[str], tmp_path: Path) -> None:
    fleet = ["simulation.fleet.availability.kind=bernoulli", "simulation.fleet.availability.probability=0.8"]
    attack = ["simulation.attack.kind=sign-flip", "simulation.attack.share=0.2"]
    found = once(toys, tmp_path / "out", Looking(), *fleet, *attack, "protection=sealed")
    assert found.attack is not None
    assert (found.attack["kind"], found.attack["attackers"]) == ("sign-flip", 1)
    assert "attack: sign-flip by 1 of 5 sites" in words.verdict(found)
    assert found.fleet is not None
    assert found.fleet.present < 5
    assert [done.drawn for done in found.curve] != [5] * 4
    assert "Attack" in Page(simulation_page.save(tmp_path / "out").read_text()).text


def test_the_command_prints_one_document(
    toys: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["simulate", *toys, "simulation=quick", "rounds.count=1", "--json", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["fedsite", *arguments])
    assert application.run(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    wanted = ("engine", "executor", "rounds", "seconds_per_round", "metric", "epsilon_max", "bytes_up_per_site_round")
    value = documents.parse(lines[0].encode())
    assert value["schema"] == results.SCHEMA
    assert {*wanted, "predicted_minutes", "seeds", "digest", "command", "versions"} <= set(value)
    assert {"name", "better", "global", "central", "local_only"} <= set(value["metric"])


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["simulate", "tsak=pump"], 2, "did you mean task"),
        (["simulate", "strategy=fedavg,median"], 2, "-m"),
        (["simulate", "data.path=nowhere.csv", "task=pump", "privacy=none"], 3, "nowhere.csv"),
        (["report", "nowhere"], 2, "fedsite simulate"),
    ],
)
def test_bad_input_has_no_traceback(
    arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fedsite", *arguments])
    assert application.run(arguments) == code
    said = capsys.readouterr()
    assert text in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


class Page(HTMLParser):
    """Elements, what they refer to, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_of_a_sweep_needs_nothing_from_anywhere(swept: tuple[Path, Manifest, Looking]) -> None:
    folder, known, _ = swept
    text = simulation_page.save(folder).read_text()
    page = Page(text)
    assert page.links == []
    assert not {"script", "link", "iframe", "img", "b"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", text)
    assert page.tags.count("svg") == 2
    assert "polygon" in page.tags  # a band over two seeds
    words = " ".join(page.text)
    assert toy_study.TITLE in words
    for wanted in (
        "Learning curves",
        "95 % confidence",
        "Fairness across sites",
        "Cost",
        "All runs",
        "failed",
        known.command,
    ):
        assert wanted in words


def test_the_page_of_one_run_shows_its_sites(toys: list[str], tmp_path: Path) -> None:
    once(
        toys,
        tmp_path / "out",
        Looking(),
        "privacy=sample",
        "privacy.epsilon=null",
        "privacy.noise_multiplier=1.0",
        "privacy.accountant=rdp",
    )
    page = Page(simulation_page.save(tmp_path / "out").read_text())
    assert "site4" in page.text
    assert any("per window, δ" in text for text in page.text)


def test_a_manifest_that_is_none_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"manifest.json: schema None") as caught:
        simulation_page.save(tmp_path)
    assert caught.value.next_step
