"""The rounds of a run: train, add up as replies come, apply, checkpoint; incoming models are judged along the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsite.protocol import weights
from fedsite.protocol.messages import ReplyHeader
from fedsite.server import checkpoint, evaluation
from fedsite.server.checkpoint import Checkpoint
from fedsite.server.cohort import Cohort
from fedsite.server.evaluation import EVALUATION, Total
from fedsite.server.exchange import Question
from fedsite.server.link import SiteLink
from fedsite.server.replies import Expected
from fedsite.server.rounds import Rules
from fedsite.server.runs import RunDirectory
from fedsite.server.session import RunEndedError, Session
from fedsite.server.strategies.strategy import Aggregator, ServerState, Strategy, Update

DELTA = "delta/"


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
        strategy: Strategy,
        run: RunDirectory,
        *,
        trained: tuple[str, ...],
        normalisation: Mapping[str, list[float]],
    ) -> None:
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

        def take(_site: SiteLink, _reply: ReplyHeader, values: weights.Arrays) -> None:
            total.add(values)
            quantized.add(values)

        sites = self._cohort.everybody()
        result = self._session.ask("evaluate", question, sites, take)
        for site_id, answer in result.answers.items():
            self._session.record.sites[site_id].evaluated += answer.bytes_down > 0
        self._session.check_stop()
        if result.state.outcome == "abandoned":
            return None
        self._judged(model, total)
        # The two figures are compared, so they are of the same sites.
        return evaluation.value(self._session.task, quantized) if quantized.count == total.count else None

    def _round(self, number: int, model: Model) -> Model | None:
        """One round; None when it was abandoned."""
        session, plan = self._session, self._session.plan
        evaluate = self._carries(model)
        aggregator = self._strategy.aggregator(model.state, self._trained)
        losses, judged = _Losses(), Total(EVALUATION)

        def take(site: SiteLink, _reply: ReplyHeader, values: weights.Arrays) -> None:
            _add(aggregator, site, values)
            losses.add(values)
            judged.add(values)

        bounds = plan.rounds
        question = Question(
            kind="train",
            round=number,
            rules=Rules(
                minimum=bounds.minimum, goal=bounds.goal, over_select=bounds.over_select, deadline_s=bounds.deadline_s
            ),
            body={"normalisation": self._normalisation, "evaluate": evaluate},
            blobs={"model": model.encoded},
            model_hash=model.hash,
            expected=self._expected(model, evaluate),
        )
        result = session.ask("train", question, self._cohort.round(), take)
        done = session.record.trained(number, result, evaluated=evaluate, loss=losses.mean)
        session.check_stop()
        if evaluate and result.state.outcome != "abandoned":
            self._judged(model, judged)
        following = None
        if result.state.outcome != "abandoned":
            following = Model.of(self._strategy.apply(model.state, aggregator.result()), number)
            self._save(following)
        facts = {key: value for key, value in done.plain().items() if key not in ("number", "metric")}
        session.journal.record("round_finished", round=number, **facts)
        return following

    def _carries(self, model: Model) -> bool:
        """Whether the round that trains from `model` also evaluates it."""
        every = self._session.plan.rounds.evaluate_every
        due = model.round > 0 and model.round % every == 0
        return due and not model.judged and evaluation.evaluates(self._session.plan)

    def _expected(self, model: Model, evaluate: bool) -> Expected:
        private = self._session.plan.privacy.mode != "none"
        required = {DELTA + name: model.state.params[name].shape for name in self._trained} | {"weight": (1,)}
        if not private:
            required["loss"] = (1,)
        return Expected(
            required=required | (self._required if evaluate else {}),
            optional=self._optional if evaluate else {},
            weight=1.0 if private else None,
        )

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
        started = session.clock()
        memory = model.state.memory
        facts = Checkpoint(
            run_id=session.plan.run_id,
            plan_hash=session.plan.hash,
            round=model.round,
            model_hash=model.hash,
            memory_hash=weights.digest(dict(memory)) if memory else "",
            normalisation={name: tuple(values) for name, values in self._normalisation.items()},
            trained={site: record.trained for site, record in session.record.sites.items()},
        )
        path = checkpoint.save(self._run.checkpoints, facts, model.state, model.encoded)
        session.record.phase("checkpoint", session.clock() - started)
        session.journal.record("checkpoint", round=model.round, path=str(path), model_hash=model.hash)


class _Losses:
    """Mean of the sites' training losses, weighted like their updates."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0

    def add(self, values: Mapping[str, Any]) -> None:
        if "loss" in values:
            self._sum += float(values["loss"][0]) * float(values["weight"][0])
            self._weight += float(values["weight"][0])

    @property
    def mean(self) -> float | None:
        return self._sum / self._weight if self._weight else None


def _add(aggregator: Aggregator, site: SiteLink, values: weights.Arrays) -> None:
    delta = {name.removeprefix(DELTA): value for name, value in values.items() if name.startswith(DELTA)}
    aggregator.add(Update(site=site.site_id, delta=delta, weight=float(values["weight"][0])))
