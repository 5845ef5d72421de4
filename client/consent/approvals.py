"""What a person at the site was asked, and what they answered: files below `site/approvals/`, bound to a plan's hash.

The agent writes `<plan hash>.run`: a plan, when it came, when it was accepted, when it ended. People write `<plan
hash>.decision`, with `fedsite rounds approve|reject`. Nobody writes the other's file, so that none needs a lock. A file
that cannot be read decides nothing, and is left as it is.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

from fedsite.protocol import documents, ids, instants, shape, storage
from fedsite.protocol.errors import ConfigError, DocumentError, IntegrityError, PolicyError, RefusalCode
from fedsite.protocol.plan import RoundPlan

FOLDER: Final = "approvals"
KEPT: Final = 64  # plans, the newest ones; decisions are kept for good
FRESH: Final = timedelta(days=7)  # a person may have read the card of a plan that came within it
PLAN_BYTES: Final = 1 << 18  # the largest plan that a person is asked about; those of shipped tasks have 10 kB
KEPT_BYTES: Final = 4 << 20  # of all plans that are kept: each look at the runs reads them
_RUN: Final = "fedsite.asked/1"
_DECISION: Final = "fedsite.decision/1"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A run that this site was asked to take part in."""

    schema: Literal["fedsite.asked/1"] = _RUN
    asked: str  # RFC 3339, UTC
    accepted: str | None = None
    ended: str | None = None
    outcome: str = ""  # as the server named it
    plan: RoundPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person answered."""

    schema: Literal["fedsite.decision/1"] = _DECISION
    plan_hash: str
    recipe: str
    run_id: str
    task: str
    verdict: Literal["approved", "rejected"]
    by: str  # user of the operating system
    at: str  # RFC 3339, UTC
    number: int = 0  # of the answers about this recipe, from 1: which is the newest, whatever the clock said


class Approvals:
    """The folder; the agent and the commands each open it for themselves."""

    def __init__(self, directory: Path) -> None:
        """Open `directory`; it is made by the first who writes."""
        self.directory = directory

    def note(self, plan: RoundPlan, now: str, *, accepted: bool = False) -> None:
        """Write down that a plan came, and whether it was accepted.

        Raises:
            IntegrityError: it is larger than a person would be shown (`too-large`).
            PolicyError: as many as are kept wait for a person already (`approval`).
            StorageError: it cannot be written.
        """
        path = self._path(plan.hash, "run")
        known = self._read(path, Known)
        if known is None:
            check_size(len(plan.encode()))
            self._make_room(now, needed=not accepted)
            self._write(path, Known(asked=now, accepted=now if accepted else None, plan=plan))
        elif accepted and known.accepted is None:
            self._write(path, replace(known, accepted=now))

    def end(self, run_id: str, outcome: str, now: str) -> None:
        """Write down that a run is over; an unknown one changes nothing."""
        for known in self.known():
            if known.plan.run_id == run_id and known.ended is None:
                self._write(self._path(known.plan.hash, "run"), replace(known, ended=now, outcome=outcome[:80]))

    def decide(self, plan: RoundPlan, verdict: Literal["approved", "rejected"], *, by: str, now: str) -> Decision:
        """Write down what a person answered; a later answer takes an earlier one's place.

        Raises:
            StorageError: it cannot be written.
        """
        before = [one.number for one in self._readable() if one.recipe == plan.recipe]
        made = Decision(
            plan_hash=plan.hash, recipe=plan.recipe, run_id=plan.run_id, task=plan.task_name, verdict=verdict, by=by,
            at=now, number=max(before, default=0) + 1,
        )  # fmt: skip
        self._write(self._path(plan.hash, "decision"), made)
        return made

    def decision(self, plan_hash: str) -> Decision | None:
        """What a person answered to this very plan.

        Raises:
            PolicyError: the file is damaged.
        """
        return self._read(self._path(plan_hash, "decision"), Decision)

    def of_recipe(self, recipe: str) -> Decision | None:
        """The newest answer to any run with this recipe.

        Raises:
            PolicyError: a decision is damaged: it may have been the one.
        """
        same = [one for one in self.decisions() if one.recipe == recipe]
        # Of two that were made at once the no counts.
        return max(same, key=lambda one: (one.number, one.at, one.verdict == "rejected"), default=None)

    def decisions(self) -> list[Decision]:
        """Every answer.

        Raises:
            PolicyError: one is damaged.
        """
        found = (self._read(path, Decision) for path in sorted(self.directory.glob("*.decision")))
        return [one for one in found if one is not None]

    def _readable(self) -> list[Decision]:
        """The answers that can be read: a damaged one does not keep anybody from saying no."""
        found = []
        for path in self.directory.glob("*.decision"):
            with contextlib.suppress(PolicyError):
                found.append(self._read(path, Decision))
        return [one for one in found if one is not None]

    def known(self) -> list[Known]:
        """Every plan that is kept, oldest first; what cannot be read is left out."""
        found = []
        for path in self.directory.glob("*.run"):
            with contextlib.suppress(PolicyError):
                found.append(self._read(path, Known))
        return sorted((one for one in found if one is not None), key=lambda one: (one.asked, one.plan.run_id))

    def _path(self, plan_hash: str, kind: str) -> Path:
        ids.hash_bytes(plan_hash)
        return self.directory / f"{plan_hash}.{kind}"

    def _read(self, path: Path, kind: type[T]) -> T | None:
        """A file of ours; None without one.

        Raises:
            PolicyError: it is not what it must be (`approval`): nobody knows what was decided.
        """
        if not path.exists():
            return None
        try:
            schema = _RUN if kind is Known else _DECISION
            value: Any = shape.read(kind, documents.document(storage.read(path), schema))
            found = value.plan.hash if kind is Known else value.plan_hash
            if found != path.stem:
                raise DocumentError("it is about another plan")
            return cast(T, value)
        except ConfigError as error:
            raise PolicyError(
                f"file {path} cannot be read: {error.found}",
                allowed="the file as it was written",
                next_step=f"restore it, or remove it and decide again: fedsite rounds, after rm {path}",
                refusal=RefusalCode.APPROVAL,
            ) from None

    def _write(self, path: Path, value: Known | Decision) -> None:
        storage.private_directory(self.directory)
        storage.write_atomic(path, documents.canonical(shape.plain(value)))

    def _make_room(self, now: str, *, needed: bool) -> None:
        """Keep the newest plans: who may ask for runs may not fill this disk with them.

        Nor may they push out one that a person has just read, and bring another under the same run's id before the
        person says yes to that: what nobody has decided yet stays for a while, whatever else comes.

        Raises:
            PolicyError: there is no room, and it is `needed` (`approval`).
        """
        known = self.known()
        files = [self._path(one.plan.hash, "run") for one in known]
        sizes = {path: path.stat().st_size for path in files}
        for path in [path for one, path in zip(known, files, strict=True) if not self._undecided(one, now)]:
            if len(sizes) < KEPT and sum(sizes.values()) <= KEPT_BYTES - PLAN_BYTES:
                break
            path.unlink(missing_ok=True)
            del sizes[path]
        if needed and not (len(sizes) < KEPT and sum(sizes.values()) <= KEPT_BYTES - PLAN_BYTES):
            raise PolicyError(
                f"{len(sizes)} plans wait for a person",
                allowed=f"at most {KEPT}, of {KEPT_BYTES} bytes together",
                next_step="fedsite rounds; then fedsite rounds reject RUN",
                refusal=RefusalCode.APPROVAL,
            )

    def _undecided(self, one: Known, now: str) -> bool:
        """Whether somebody may be about to decide about a plan; what cannot be read counts as decided."""
        if one.accepted is not None or abs(instants.read(now) - instants.read(one.asked)) > FRESH:
            return False
        return not self._path(one.plan.hash, "decision").exists()


def check_size(size: int) -> None:
    """Refuse a plan of more bytes than a person would be shown: to read it takes minutes.

    Raises:
        IntegrityError: it is (`too-large`).
    """
    if size > PLAN_BYTES:
        raise IntegrityError(f"a plan of {size} bytes", allowed=f"at most {PLAN_BYTES}", refusal=RefusalCode.TOO_LARGE)


def check(plan: RoundPlan, mode: Literal["automatic", "once", "each"], approvals: Approvals) -> Decision | None:
    """Whether a person has agreed as far as the site's rules want it; returns the decision it rests on.

    Raises:
        PolicyError: nobody has decided yet (`approval`), or somebody said no (`policy`).
    """
    own = approvals.decision(plan.hash)
    if own is not None and own.verdict == "rejected":
        raise PolicyError(
            f"run {plan.run_id} was rejected by {own.by} at {own.at}",
            next_step=f"fedsite rounds approve {plan.run_id} takes it back",
        )
    if mode == "automatic" or own is not None:
        return own
    same = approvals.of_recipe(plan.recipe) if mode == "once" else None
    if same is not None and same.verdict == "approved":
        return same
    raise PolicyError(
        f"nobody has decided about run {plan.run_id} yet (policy.approval is {mode})",
        allowed="a run that a person at this site has approved",
        next_step=f"fedsite rounds show {plan.run_id}",
        refusal=RefusalCode.APPROVAL,
    )
