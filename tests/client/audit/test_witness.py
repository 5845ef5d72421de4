"""A ledger set back to a backup with its mark, or with the whole state directory: noticed, refused, accepted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.audit import witness
from fedsite.client.health import facts as health_facts
from fedsite.client.ledger import acceptance
from fedsite.client.ledger.budget import Budget, reader
from fedsite.protocol import audit, audit_lines, shape
from fedsite.protocol.audit import Head
from fedsite.protocol.errors import BudgetError, ConfigError, RefusalCode
from fedsite.protocol.messages import Frame, read_header, read_reply
from fedsite.protocol.plan import PrivacyPlan
from tests.client.conftest import NOW

LEDGER = ("budget.db", "budget.db-wal", "budget.db-shm", "budget.mark")


class Site:
    """A joined site that has spent, a backup of its files from before it spent the last time, and what it told."""

    def __init__(self, kit: Any, folder: Path) -> None:
        self.kit, self.backup = kit, folder / "backup"
        self.directory = kit.site.directory
        self.plan = kit.centre.plan()
        self.answers = kit.logged()
        assert self.code(kit.centre.prepare(kit.site, self.plan)) is None
        shutil.copytree(self.directory, self.backup)
        self.head = self.told(kit.centre.train(kit.site, self.plan))

    def told(self, frame: Frame) -> Head:
        """The head of the site's log, as its answer tells it."""
        return audit.read_head(read_reply(self.answers.handle(frame).header).body["audit"])

    def code(self, frame: Frame) -> RefusalCode | None:
        return read_reply(self.answers.handle(frame).header).code

    def put_back(self, *names: str) -> None:
        """These of the backup's files in place of those that are there; without names everything."""
        for path in [self.directory / name for name in names] or [*self.directory.iterdir()]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for path in [self.backup / name for name in names] or [*self.backup.iterdir()]:
            if path.is_dir():
                shutil.copytree(path, self.directory / path.name)
            elif path.exists():
                shutil.copy2(path, self.directory / path.name)
        self.answers = self.kit.logged()

    def asked(self, plan: Any, held: Head | None) -> Frame:
        """A run's first instruction, from a centre that holds a head of this site's log."""
        frame = self.kit.centre.prepare(self.kit.site, plan)
        if held is None:
            return frame
        header = read_header(frame.header)
        signed: Frame = self.kit.centre.sign(replace(header, body={audit.HELD: shape.plain(held)}), frame.blobs)
        return signed

    def another(self, letter: str) -> Any:
        return replace(self.kit.centre.plan(), run_id=self.plan.run_id[:-1] + letter)

    def kinds(self) -> list[str]:
        files = audit_lines.files(self.directory / "audit" / self.kit.site.id)
        return [audit.read(line.data).kind for line in audit_lines.lines(files)]


@pytest.fixture
def site(kit: Any, joined: Any, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(kit, tmp_path_factory.mktemp("kept"))


def test_a_ledger_and_its_mark_put_back_together_are_missed_by_the_audit_log(site: Site) -> None:
    site.put_back(*LEDGER)
    assert site.code(site.kit.centre.train(site.kit.site, site.plan, round=2)) == RefusalCode.BUDGET
    assert site.code(site.asked(site.another("Z"), None)) == RefusalCode.BUDGET
    for read_only in (False, True):
        with pytest.raises(BudgetError, match=r"older than what was written here .*, says the audit log") as refused:
            Budget(site.kit.budget_path, read_only=read_only)
        assert "fedsite privacy --accept" in refused.value.next_step
    found = health_facts.read(site.kit.site, NOW, counting=None)
    assert [problem.code for problem in found.problems] == ["ledger"]


@pytest.mark.parametrize("names", [("budget.db", "budget.mark"), LEDGER])
def test_a_ledger_and_its_mark_that_are_gone_together_are_missed(site: Site, names: tuple[str, ...]) -> None:
    for name in names:
        (site.directory / name).unlink(missing_ok=True)
    with pytest.raises(BudgetError, match="missing or empty"):
        reader(site.kit.budget_path)
    with pytest.raises(BudgetError, match="missing or empty"):
        Budget(site.kit.budget_path)
    assert not site.kit.budget_path.exists()


def test_a_ledger_that_is_further_than_the_log_is_fine(site: Site) -> None:
    """As after kill -9 between a charge and its entry."""
    path = site.directory / "audit" / site.kit.site.id / "000000000001.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    Budget(site.kit.budget_path).close()


def test_a_state_directory_put_back_is_noticed_by_what_the_centre_holds(site: Site) -> None:
    site.put_back()
    Budget(site.kit.budget_path).close()  # nothing here says that it is old
    assert site.code(site.asked(site.another("X"), site.head)) == RefusalCode.BUDGET
    assert site.kinds()[-2:] == [witness.SET_BACK, "refused"]
    # From now on nothing has to be told again, and nothing that is written makes it good.
    assert site.code(site.asked(site.another("Y"), None)) == RefusalCode.BUDGET
    assert site.code(site.asked(site.another("Y"), site.head)) == RefusalCode.BUDGET
    site.answers = site.kit.logged()
    assert site.code(site.kit.centre.train(site.kit.site, site.plan, round=2)) == RefusalCode.BUDGET
    assert site.kinds().count(witness.SET_BACK) == 1
    with pytest.raises(BudgetError, match=r"set back with all of .*entry 4 of its audit log"):
        Budget(site.kit.budget_path)


def test_a_log_that_has_grown_past_what_the_centre_holds_is_still_another_one(site: Site) -> None:
    site.put_back()
    for letter in "RSTW":  # whatever an operator does meanwhile
        site.answers.handle(site.kit.centre.train(site.kit.site, site.another(letter)))
    assert len(site.kinds()) > site.head.sequence
    assert site.code(site.asked(site.another("X"), site.head)) == RefusalCode.BUDGET


def test_what_the_centre_holds_of_a_site_that_was_not_set_back_changes_nothing(site: Site) -> None:
    for held in (site.head, Head(sequence=site.head.sequence - 1, hash=_hash(site, site.head.sequence - 1))):
        for answers in (site.answers, site.kit.logged()):
            site.answers = answers
            assert site.code(site.asked(site.plan, held)) in (None, RefusalCode.REPLAYED)
    assert witness.SET_BACK not in site.kinds()


def _hash(site: Site, sequence: int) -> str:
    files = audit_lines.files(site.directory / "audit" / site.kit.site.id)
    return next(e.head.hash for e in (audit.read(x.data) for x in audit_lines.lines(files)) if e.sequence == sequence)


@pytest.fixture(params=["ledger", "gone", "everything"])
def refused(site: Site, request: pytest.FixtureRequest) -> Site:
    """A site whose ledger is not believed."""
    if request.param == "ledger":
        site.put_back(*LEDGER)
    elif request.param == "gone":
        for name in LEDGER:
            (site.directory / name).unlink(missing_ok=True)
    else:
        site.put_back()
        site.answers.handle(site.asked(site.another("X"), site.head))
    with pytest.raises(BudgetError):
        reader(site.kit.budget_path)
    return site


def test_the_operator_accepts_it_once_and_the_log_says_who(refused: Site) -> None:
    told = acceptance.accept(refused.directory, "op")
    assert refused.kinds()[-1] == witness.ACCEPTED
    seen = witness.read(refused.directory)
    assert seen is not None
    assert (seen.budget, seen.sequence) == (told["after"]["budget"], told["after"]["sequence"])
    refused.answers = refused.kit.logged()
    # The centre may not have heard yet, and names the same entry again.
    assert refused.code(refused.asked(refused.another("Z"), refused.head)) is None
    with pytest.raises(ConfigError, match="as it was written"):
        acceptance.accept(refused.directory, "op")


def test_a_damaged_ledger_is_not_accepted_and_keeps_its_mark(site: Site) -> None:
    (site.directory / "budget.db").write_bytes(b"x" * 5000)
    mark = (site.directory / "budget.mark").read_bytes()
    with pytest.raises(BudgetError, match="damaged"):
        acceptance.accept(site.directory, "op")
    assert (site.directory / "budget.mark").read_bytes() == mark
    assert site.kinds()[-1] == "released"


def test_a_crash_in_the_middle_of_accepting_accepts_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put_back(*LEDGER)

    def killed(*_given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(acceptance.audit_log, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        acceptance.accept(site.directory, "op")
    with pytest.raises(BudgetError, match="says the audit log"):
        Budget(site.kit.budget_path)


Changed = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "change", [lambda line: line[: len(line) // 2], lambda line: b"{}", lambda line: b"\xff" + line, lambda line: b""]
)
def test_a_damaged_entry_says_nothing_and_the_one_before_does(site: Site, change: Changed) -> None:
    path = site.directory / "audit" / site.kit.site.id / "000000000001.jsonl"
    *before, last = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*before, change(last), b""]))
    seen = witness.read(site.directory)
    assert seen is not None
    assert seen.sequence == audit.read(before[-1]).facts["ledger"]["after"]["sequence"]


def test_of_two_identities_the_present_one_decides(site: Site) -> None:
    seen = witness.read(site.directory)
    other = site.directory / "audit" / ("0" * 32)
    shutil.copytree(site.directory / "audit" / site.kit.site.id, other)
    path = other / "000000000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"sequence":', b'"sequence":9'))
    assert witness.read(site.directory) == seen
    shutil.rmtree(site.directory / "audit" / site.kit.site.id)  # it joined anew, and has not spent since
    known = witness.read(site.directory)
    assert known is not None
    assert seen is not None
    assert known.sequence > seen.sequence


@pytest.mark.parametrize("what", ["a run without privacy", "the end of a run"])
def test_nothing_but_acceptance_makes_it_good(refused: Site, what: str) -> None:
    """What is still done is written down with how far the ledger was: the log goes on, and has not forgotten."""
    site = refused
    if what == "a run without privacy":
        site.answers = site.kit.logged(settings=site.kit.handler_settings(require_privacy=False))
        public = replace(site.another("P"), privacy=PrivacyPlan(mode="none"))
        assert site.code(site.kit.centre.prepare(site.kit.site, public)) is None
        assert site.code(site.kit.centre.train(site.kit.site, public)) is None
        assert site.kinds()[-1] == "released"
    else:
        site.answers.handle(site.kit.centre.ask(site.kit.site, "finish", site.plan, round=3))
    site.answers = site.kit.logged()
    assert site.code(site.asked(site.another("Z"), None)) == RefusalCode.BUDGET
    with pytest.raises(BudgetError):
        reader(site.kit.budget_path)
