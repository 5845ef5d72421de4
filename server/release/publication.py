"""The end of a run: calibrate, quantize, measure, sign, deliver. An int8 model that lost too much is not released."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedsite.models import calibration
from fedsite.protocol import release as manifests
from fedsite.protocol.encoding import sha256
from fedsite.protocol.errors import IntegrityError
from fedsite.server.release import build as release
from fedsite.server.release.build import CALIBRATION, Candidate, Graph, Signed, Signer
from fedsite.server.rounds import evaluation
from fedsite.server.rounds.cohort import Cohort
from fedsite.server.rounds.evaluation import Total
from fedsite.server.rounds.machine import Status
from fedsite.server.rounds.question import Question
from fedsite.server.rounds.replies import Expected
from fedsite.server.rounds.session import Session
from fedsite.server.rounds.spent import claim
from fedsite.server.rounds.training import Model


class Publication:
    """Makes a release of the last model and has the sites install it."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def make(
        self, session: Session, cohort: Cohort, model: Model, normalisation: Mapping[str, list[float]]
    ) -> Candidate:
        """Export, ask the sites for activation counts where the plan allows it, and quantize.

        Raises:
            FedsiteError: the model cannot be exported or quantized.
            RunEndedError: stopped.
        """
        started = session.clock()
        graph = release.export(session.plan, session.task, model.state.params)
        session.record.phase("export", session.clock() - started)
        counts, noise = self._counts(session, cohort, model, normalisation, graph)
        started = session.clock()
        scales = evaluation.read_plain(normalisation)
        candidate = release.quantize(graph, session.task, scales, counts, noise=noise)
        session.record.phase("quantize", session.clock() - started)
        session.journal.record(
            "quantized",
            bytes=len(candidate.int8),
            fp32_bytes=len(candidate.fp32),
            deviation=round(candidate.deviation, 6),
            calibrated=counts is not None,
        )
        return candidate

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
        """Check parity, sign, and have every site install; returns the `release` part of the result, None if refused.

        Args:
            session: the run.
            cohort: whom to deliver to.
            candidate: of `make`.
            normalisation: the run's.
            fp32: the metric of the final model on the sites' holdouts, if it was measured.
            int8: the same of the candidate.
        """
        parity = manifests.Parity(metric=session.task.metric.name, fp32=fp32, int8=int8)
        facts = {
            "parity": {"metric": parity.metric, "fp32": fp32, "int8": int8, "deviation": candidate.deviation},
            "threshold": candidate.threshold,
        }
        try:
            release.check_parity(session.plan, session.task, candidate, fp32, int8)
        except IntegrityError as error:
            session.journal.record("release_refused", reason=str(error), **facts)
            session.record.release_refusal = str(error)
            return None
        signed = self._signer.sign(
            session.plan,
            session.task,
            candidate,
            evaluation.read_plain(normalisation),
            parity=parity,
            privacy=claim(session.plan, session.record.charge()),
        )
        shown = {
            "version": signed.version,
            "bytes": signed.bytes,
            "fp32_bytes": signed.fp32_bytes,
            "sha256": signed.model_sha256,
            "manifest_hash": signed.manifest_hash,
            "folder": str(signed.folder),
            **facts,
        }
        session.journal.record("released", **shown)
        verified, failed = self._install(session, cohort, signed)
        return {**shown, "verified_sites": len(verified), "failed": failed}

    def _counts(
        self,
        session: Session,
        cohort: Cohort,
        model: Model,
        normalisation: Mapping[str, list[float]],
        graph: Graph,
    ) -> tuple[dict[str, Any] | None, float]:
        """Summed calibration counts and the noise on each; None where the sites are not asked or too few answered."""
        plan = session.plan
        if not evaluation.calibrates(plan) or not graph.tensors:
            return None, 0.0
        score = session.task.loss == "reconstruction"
        total = Total(CALIBRATION)
        question = Question(
            kind="calibrate",
            round=model.round,
            rules=session.rules(),
            body={"normalisation": dict(normalisation), "tensors": list(graph.tensors)},
            blobs={"graph": graph.tapped},
            model_hash=sha256(graph.tapped).hex(),
            expected=Expected(required=graph.shapes(score=score)),
        )
        sites = cohort.everybody()
        result = session.ask("calibrate", question, sites, lambda found: total.add(found.values, found.sites))
        for site_id, answer in result.answers.items():
            session.record.sites[site_id].calibrated |= answer.charged
        session.check_stop()
        if result.state.outcome == "abandoned":
            return None, 0.0
        # The noise is scaled to one unit's part in all rows together.
        one = plan.privacy.calibration_noise * calibration.sensitivity(len(graph.tensors), scores=score)
        return dict(total.sums), one * evaluation.spread(plan, total.count)

    def _install(self, session: Session, cohort: Cohort, signed: Signed) -> tuple[list[str], dict[str, str]]:
        """Names of the sites that verified and installed the release, and why others did not."""
        question = Question(
            kind="install",
            round=session.plan.rounds.count,
            rules=session.rules(minimum=0),
            body={"version": signed.version, "manifest_hash": signed.manifest_hash},
        )
        result = session.ask("install", question, cohort.members())
        verified, failed = [], {}
        for site_id, answer in result.answers.items():
            record = session.record.sites[site_id]
            good = answer.status is Status.OK and answer.body.get("verified") is True
            record.installed = "ok" if good else str(answer.code or answer.status)
            if good:
                verified.append(record.name)
            else:
                failed[record.name] = str(answer.code or answer.status)
        session.check_stop()
        session.journal.record("installed", version=signed.version, verified=sorted(verified), failed=failed)
        return sorted(verified), failed
