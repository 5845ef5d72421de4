"""The rounds of a run: train, add up as replies come, apply, checkpoint; incoming models are judged along the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsite.protocol import weights
from fedsite.protocol.errors import PolicyError
from fedsite.protocol.messages import DELTA, LOSS, WEIGHT
from fedsite.server.rounds import corrections, evaluation
from fedsite.server.rounds.cohort import Cohort
from fedsite.server.rounds.evaluation import EVALUATION, Total
from fedsite.server.rounds.machine import Rules
from fedsite.server.rounds.question import Contribution, Question, Result, Upcoming
from fedsite.server.rounds.replies import Expected
from fedsite.server.rounds.session import RunEndedError, Session
from fedsite.server.runs import checkpoint
from fedsite.server.runs.checkpoint import Checkpoint
from fedsite.server.runs.folder import RunDirectory
from fedsite.server.strategies.strategy import Aggregate, Aggregator, ServerState, Strategy, Update
from fedsite.server.sums import fields


@dataclass(slots=True, kw_only=True)
class Model:
    """The global model as it travels."""

    state: ServerState
    encoded: bytes
    hash: str  # SHA-256 hex of `encoded`
    round: int  # that produced it; 0: the initial one
    metric: float | None = None  # of this very model
    judged: bool = False

    @classmethod
    def of(cls, state: ServerState, number: int) -> Model:
        """Encode once; sent to many."""
        encoded = weights.encode(dict(state.params))
        return cls(state=state, encoded=encoded, hash=weights.digest(dict(state.params)), round=number)


class Training:
    """Runs rounds until the last one, or until too many in a row came to nothing."""

    def __init__(
        self,
        session: Session,
        cohort: Cohort,
        strategy: Callable[[], Strategy],
        run: RunDirectory,
        *,
        trained: tuple[str, ...],
        normalisation: Mapping[str, list[float]],
    ) -> None:
        """`strategy` is asked for in each round: sites may have joined since."""
        self._session = session
        self._cohort = cohort
        self._strategy = strategy
        self._run = run
        self._trained = trained
        self._normalisation = dict(normalisation)
        self.model: Model | None = None  # the newest one, also after an error
        self._required, self._optional = evaluation.evaluation_shapes(session.task)

    def run(self, model: Model) -> Model:
        """All rounds after the one that produced `model`; returns the last model.

        Raises:
            RunEndedError: `patience` abandoned rounds in a row, a model that is not finite, or stopped.
        """
        plan = self._session.plan.rounds
        self.model = model
        abandoned = 0
        for number in range(model.round + 1, plan.count + 1):
            following = self._round(number, model)
            abandoned = abandoned + 1 if following is None else 0
            if abandoned >= plan.patience:
                last = self._session.record.rounds[-1].reason
                raise RunEndedError("failed", f"{abandoned} rounds in a row were abandoned, the last because {last}")
            self.model = model = model if following is None else following
        return model

    def judge(self, model: Model, int8: bytes | None = None) -> float | None:
        """Have the sites evaluate a model that no round will carry; returns the metric of `int8`, if it was measured.

        The int8 graph travels along without privacy only: under it a second evaluation would be a second spend.
        """
        if model.judged or model.round == 0 or not evaluation.evaluates(self._session.plan):
            return None
        total, quantized = Total(EVALUATION), Total(evaluation.PARITY)
        private = self._session.plan.privacy.mode != "none"
        graph = {} if int8 is None or private else {"graph": int8}
        twins = {**self._required, **self._optional} if graph else {}
        optional = self._optional | {name.replace(EVALUATION, evaluation.PARITY): twins[name] for name in twins}
        question = Question(
            kind="evaluate",
            round=model.round,
            rules=self._session.rules(),
            body={"normalisation": self._normalisation},
            blobs={"model": model.encoded, **graph},
            model_hash=model.hash,
            expected=Expected(required=self._required, optional=optional),
        )

        def take(found: Contribution) -> None:
            total.add(found.values, found.sites)
            quantized.add(found.values, found.sites)

        sites = self._cohort.everybody()
        result = self._session.ask("evaluate", question, sites, take)
        for site_id, answer in result.answers.items():
            self._session.record.sites[site_id].evaluated += answer.charged
        self._session.check_stop()
        if result.state.outcome == "abandoned":
            return None
        self._judged(model, total)
        # The two figures are compared, so they are of the same windows.
        same = quantized.count == total.count and evaluation.comparable(total, quantized)
        return evaluation.value(self._session.task, quantized) if same else None

    def _round(self, number: int, model: Model) -> Model | None:
        """One round; None when it was abandoned."""
        session, plan = self._session, self._session.plan
        evaluate, strategy = self._carries(model), self._strategy()
        aggregator = strategy.aggregator(model.state, self._trained)
        losses, judged = _Losses(), Total(EVALUATION)

        def take(found: Contribution) -> None:
            _add(aggregator, found)
            losses.add(found.values)
            judged.add(found.values, found.sites)

        bounds = plan.rounds
        question = Question(
            kind="train",
            round=number,
            rules=Rules(
                minimum=bounds.minimum, goal=bounds.goal, over_select=bounds.over_select, deadline_s=bounds.deadline_s
            ),
            body={"normalisation": self._normalisation, "evaluate": evaluate},
            blobs={"model": model.encoded, **corrections.carried(plan, strategy, model.state, self._trained)},
            own=corrections.told(plan, session.record),
            model_hash=model.hash,
            expected=_values(session, self._trained, model, evaluate),
            following=self._following(number, model),
        )
        result, aggregate = _aggregated(session.ask("train", question, self._cohort.round(), take), aggregator)
        self._cohort.heard(result.answers)
        done = session.record.trained(number, result, evaluated=evaluate, loss=losses.mean)
        session.check_stop()
        if evaluate and result.state.outcome != "abandoned":
            self._judged(model, judged)
        following = None
        if aggregate is not None:
            aggregate = dataclasses.replace(aggregate, round=number)
            following = Model.of(strategy.apply(model.state, aggregate), number)
            corrections.count(plan, session.record, result.participants, number)
            self._save(following)
        facts = {key: value for key, value in done.plain().items() if key not in ("number", "metric")}
        session.journal.record("round_finished", round=number, **facts)
        return following

    def _carries(self, model: Model) -> bool:
        """Whether the round that trains from `model` also evaluates it."""
        every = self._session.plan.rounds.evaluate_every
        due = model.round > 0 and model.round % every == 0
        return due and not model.judged and evaluation.evaluates(self._session.plan)

    def _following(self, number: int, model: Model) -> Upcoming | None:
        """The sum after round `number`, if that one succeeds."""
        session = self._session
        if number < session.plan.rounds.count:
            return train_sum(session, self._trained, model, number + 1)
        if evaluation.evaluates(session.plan) and not session.plan.release.enabled:
            expected = Expected(required=self._required, optional=self._optional)
            return Upcoming(purpose="evaluate", round=number, expected=expected)
        return None

    def _judged(self, model: Model, total: Total) -> None:
        model.judged = True
        model.metric = evaluation.value(self._session.task, total)
        self._session.record.evaluation(model.round, model.metric)
        self._session.journal.record("evaluated", round=model.round, metric=model.metric, sites=total.count)

    def _save(self, model: Model) -> None:
        session = self._session
        for name in self._trained:
            if not np.isfinite(model.state.params[name]).all():
                reason = f"{name} is not finite after round {model.round}: a lower local.learning_rate may help"
                raise RunEndedError("failed", reason)
        keep(session, self._run, model, self._normalisation)


def keep(session: Session, run: RunDirectory, model: Model, normalisation: Mapping[str, list[float]]) -> None:
    """Write a checkpoint of a model and of what training needs beside it.

    Raises:
        StorageError: the disk is full or read-only.
    """
    started = session.clock()
    memory = model.state.memory
    facts = Checkpoint(
        run_id=session.plan.run_id,
        plan_hash=session.plan.hash,
        round=model.round,
        model_hash=model.hash,
        memory_hash=weights.digest(dict(memory)) if memory else "",
        normalisation={name: tuple(values) for name, values in normalisation.items()},
        trained={site: record.trained for site, record in session.record.sites.items()},
        counted={site: record.counted for site, record in session.record.sites.items() if record.counted},
    )
    path = checkpoint.save(run.checkpoints, facts, model.state, model.encoded)
    session.record.phase("checkpoint", session.clock() - started)
    session.journal.record("checkpoint", round=model.round, path=str(path), model_hash=model.hash)


class _Losses:
    """Mean of the sites' training losses, weighted like their updates."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0

    def add(self, values: Mapping[str, Any]) -> None:
        if LOSS in values:
            self._sum += float(values[LOSS][0]) * float(values[WEIGHT][0])
            self._weight += float(values[WEIGHT][0])

    @property
    def mean(self) -> float | None:
        return self._sum / self._weight if self._weight else None


def _aggregated(result: Result, aggregator: Aggregator) -> tuple[Result, Aggregate | None]:
    """What the updates amount to; where they are too few for the strategy, the round is abandoned for that reason."""
    if result.state.outcome == "abandoned":
        return result, None
    try:
        return result, aggregator.result()
    except PolicyError as error:
        reason = f"{error.found}, {error.allowed}"
        state = dataclasses.replace(result.state, outcome="abandoned", reason=reason)
        return dataclasses.replace(result, state=state), None


def _add(aggregator: Aggregator, found: Contribution) -> None:
    values = found.values
    delta = {name.removeprefix(DELTA): value for name, value in values.items() if name.startswith(DELTA)}
    weight = float(values[WEIGHT][0])
    aggregator.add(Update(site=found.source, delta=delta, weight=weight, sites=found.sites))


def train_sum(session: Session, trained: Sequence[str], model: Model, number: int) -> Upcoming:
    """The sum of round `number`, when the round before it produced a model like `model`."""
    due = number > 1 and (number - 1) % session.plan.rounds.evaluate_every == 0
    evaluate = due and evaluation.evaluates(session.plan)
    return Upcoming(purpose="train", round=number, expected=_values(session, trained, model, evaluate))


def _values(session: Session, trained: Sequence[str], model: Model, evaluate: bool) -> Expected:
    return fields.train_values(session.plan, session.task, model.state.params, trained, evaluate=evaluate)
