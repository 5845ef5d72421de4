"""Drives one run over a link: prepare, rounds, evaluation, release, finish. It ends, always, and says how.

The phases are files of their own (cohort, training, publication); this one puts them in order, decides what an error
means for the run, and leaves result.json. No torch here: a release imports it when it comes to that.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from fedsite.protocol import documents, storage
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.sealing import RunKey
from fedsite.server.audit_log import RunTrail
from fedsite.server.link.transport import Failure, Link, SiteLink
from fedsite.server.rounds import evaluation
from fedsite.server.rounds.cohort import Cohort, statistics_sum
from fedsite.server.rounds.exchange import Exchange
from fedsite.server.rounds.machine import Rules
from fedsite.server.rounds.question import Question
from fedsite.server.rounds.session import RunEndedError, RunOutcome, Session
from fedsite.server.rounds.training import Model, Training, keep, train_sum
from fedsite.server.runs import checkpoint
from fedsite.server.runs.folder import RunDirectory
from fedsite.server.runs.journal import Journal
from fedsite.server.runs.record import Record
from fedsite.server.strategies import registry
from fedsite.server.strategies.strategy import ServerState, Strategy
from fedsite.server.sums.secagg import SecureSums
from fedsite.telemetry.task import read_task

if TYPE_CHECKING:
    from fedsite.server.release.build import Candidate

__all__ = ["Coordinator", "Failure", "Link", "Publisher", "SiteLink"]

FINISH_S = 5.0  # sites have this long to say that they heard of the end, seconds
LINGER_S = 600.0  # and those that are still at work, as long as that may take, but no longer than this
LOOK_S = 1.0  # between looks whether they have heard

_log = logging.getLogger(__name__)


class Publisher(Protocol):
    """Makes a release of the last model and has the sites install it (publication.Publication)."""

    def make(
        self, session: Session, cohort: Cohort, model: Model, normalisation: Mapping[str, list[float]]
    ) -> Candidate:
        """The int8 model, unsigned."""

    def deliver(
        self,
        session: Session,
        cohort: Cohort,
        candidate: Candidate,
        normalisation: Mapping[str, list[float]],
        *,
        fp32: float | None,
        int8: float | None,
    ) -> Mapping[str, Any] | None:
        """Returns the `release` part of the result, None when the candidate is not good enough."""


class Coordinator:
    """One attempt at one run."""

    def __init__(
        self,
        *,
        run: RunDirectory,
        link: Link,
        journal: Journal,
        key: SigningKey,
        run_key: RunKey | None,
        epoch: int = 1,
        publish: Publisher | None = None,
        trail: RunTrail | None = None,
        stopping: Callable[[], bool] = lambda: False,
        leaving: Callable[[], bool] = lambda: False,
        shuffle: Callable[[list[SiteLink]], None] = secrets.SystemRandom().shuffle,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Put the parts together; nothing is sent yet.

        Args:
            run: where the plan is and the result goes.
            link: transport to the sites.
            journal: of this run; this is its one writer.
            key: the federation's, signs instructions.
            run_key: opens sealed values; None in the other protection modes.
            epoch: from 1, rises with every resume.
            publish: makes the release; None leaves it out.
            trail: this run's part of the audit log; None keeps none.
            stopping: asked often; True ends the run.
            leaving: whether this process itself is to end; then nobody is waited for when the run has ended.
            shuffle: puts sites in the order in which a round with a goal asks them; a simulation has its own.
            clock: monotonic seconds.
            now: seconds since 1970.
            wait: sleeps.
        """
        self._run = run
        self._plan = run.plan()
        self._clock = clock
        self._publish = publish
        self._epoch = epoch
        self._interrupted = stopping
        self._leaving = leaving
        self._wait = wait
        self._closing = False
        exchange = Exchange(
            plan=self._plan,
            epoch=epoch,
            link=link,
            key=key,
            run_key=run_key,
            journal=journal,
            stopping=self._stopping,
            trail=trail,
            clock=clock,
            now=now,
        )
        record = Record(self._plan, epoch=epoch)
        self._session = Session(
            plan=self._plan,
            task=read_task(self._plan.task),
            link=link,
            exchange=exchange,
            sums=SecureSums(
                plan=self._plan,
                exchange=exchange,
                link=link,
                journal=journal,
                note=record.secure_sum,
                stopping=self._stopping,
                clock=clock,
                wait=wait,
            ),
            journal=journal,
            record=record,
            stopping=self._stopping,
            clock=clock,
            now=now,
            wait=wait,
        )
        self._cohort = Cohort(self._session, shuffle)
        self._model: Model | None = None
        self._release: Mapping[str, Any] | None = None

    def run(self) -> dict[str, Any]:
        """Drive the run to its end; returns the result that was written.

        Raises:
            StorageError: the result itself could not be written.
        """
        started = self._clock()
        outcome, reason = self._outcome()
        self._session.record.charge()
        self._finish(outcome)
        model = self._model
        result = self._session.record.result(
            outcome=outcome,
            reason=reason,
            seconds=self._clock() - started,
            metric=None if model is None else model.metric,
            release=self._release,
        )
        storage.write_atomic(self._run.result_file, documents.canonical(result))
        # Nothing sealed for this run can be opened from here on.
        self._run.key_file.unlink(missing_ok=True)
        self._session.journal.record(
            "finished", outcome=outcome, reason=reason, metric=result["metric"]["global"], seconds=result["seconds"]
        )
        self._linger()
        return result

    def _outcome(self) -> tuple[RunOutcome, str]:
        """Drive, and name what came of it."""
        try:
            self._drive()
        except RunEndedError as error:
            return error.outcome, error.reason
        except FedsiteError as error:
            return "failed", str(error)
        except Exception as error:
            _log.exception("run %s ended by a defect", self._plan.run_id)
            return "failed", f"a defect of fedsite ({type(error).__name__}): see the server's log"
        return "completed", f"{self._plan.rounds.count} rounds"

    def _drive(self) -> None:
        session, plan = self._session, self._plan
        model, known = self._start()
        session.journal.record("started", attempt=self._epoch, round=model.round, rounds=plan.rounds.count)
        normalisation = self._prepare(model, known)
        training = Training(
            session,
            self._cohort,
            self._strategy,
            self._run,
            trained=self._run.launch().trained,
            normalisation=normalisation,
        )
        try:
            model = training.run(model)
        finally:
            self._model = training.model
        if not plan.release.enabled or self._publish is None or model.round == 0:
            training.judge(model)
            return
        try:
            candidate = self._publish.make(session, self._cohort, model, normalisation)
        except FedsiteError:
            # The run has a model even where it has no release: say how good it is.
            training.judge(model)
            raise
        int8 = training.judge(model, candidate.int8)
        self._release = self._publish.deliver(
            session, self._cohort, candidate, normalisation, fp32=model.metric, int8=int8
        )

    def _prepare(self, model: Model, known: dict[str, list[float]]) -> dict[str, list[float]]:
        """Have the sites accept the plan; the normalisation of the run, from their statistics where it reads them."""
        session, plan = self._session, self._session.plan
        first = train_sum(session, self._run.launch().trained, model, model.round + 1)
        # What an earlier driver may have opened, sites make no keys for: that is no reason not to accept the plan.
        ahead = self._epoch == 1
        if known or not evaluation.reads_statistics(plan):
            self._cohort.gather(first if ahead else None)
            return known or evaluation.plain(evaluation.normalisation(session.task, None))
        self._cohort.gather(statistics_sum(session) if ahead else None)
        total = self._cohort.statistics(first)
        noise = plan.privacy.statistics_noise * evaluation.spread(plan, total.count)
        found = evaluation.plain(evaluation.normalisation(session.task, total, noise))
        # A site opens this sum once: a driver that takes over has to know what came of it.
        keep(session, self._run, model, found)
        return found

    def _start(self) -> tuple[Model, dict[str, list[float]]]:
        """The newest checkpoint and its normalisation, or the initial model."""
        found = checkpoint.latest(self._run.checkpoints)
        if found is not None and found[0].plan_hash == self._plan.hash:
            facts, state = found
            self._session.record.restore(facts.trained, facts.counted)
            return Model.of(state, facts.round), {name: list(values) for name, values in facts.normalisation.items()}
        initial: ServerState = self._strategy().init(self._run.initial(self._plan))
        return Model.of(initial, 0), {}

    def _strategy(self) -> Strategy:
        """The plan's strategy, over as many sites as have accepted the plan by now."""
        plan, known = self._plan, self._session.record.sites
        sites = self._cohort.accepted | {site_id for site_id, site in known.items() if site.counted}
        return registry.build(plan.strategy.name, plan.strategy.options, local=plan.local, sites=len(sites))

    def _finish(self, outcome: str) -> None:
        """Tell the sites that it is over, best effort: a budget reserved for nothing is free again."""
        self._closing = True
        with contextlib.suppress(Exception):
            known = {site for site, record in self._session.record.sites.items() if record.prepared}
            sites = [site for site in self._session.link.sites() if site.site_id in known]
            if sites:
                rules = Rules(minimum=0, deadline_s=FINISH_S)
                question = Question(
                    kind="finish",
                    round=self._plan.rounds.count,
                    rules=rules,
                    body={"outcome": outcome},
                    lasts_s=min(self._session.exchange.overdue.open_s, LINGER_S),
                )
                self._session.record.exchange("finish", self._session.exchange.ask(question, sites))

    def _linger(self) -> None:
        """Stay until the sites that were still at work have heard of the end too.

        A site takes one instruction after the other, and what a driver leaves undelivered Flower drops with its run: a
        site that was late to accept the plan would hold what it has set aside for good.
        """
        until = self._clock() + LINGER_S
        try:
            while not self._leaving() and self._clock() < until and self._session.exchange.overdue.unheard("finish"):
                self._wait(LOOK_S)
        except Exception:
            _log.exception("the run has ended; whether every site heard of it is not known")

    def _stopping(self) -> bool:
        return not self._closing and self._interrupted()
