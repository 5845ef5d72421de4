"""The fidelity engine: a plan's run as it is in production, through Flower's own simulation.

The real coordinator drives the run over Flower's messages; at each virtual node a real ClientApp hands them to the real
handler of a site (flower_site says what is a simulation's). Cohorts, batches and the noise of DP-SGD are those of the
vectorised engine, so both end at the same model; docs/simulation.md says how near.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol import sealing
from fedsite.protocol.errors import ConfigError
from fedsite.server.link.transport import SiteLink
from fedsite.server.rounds.coordinator import Coordinator
from fedsite.server.runs import checkpoint
from fedsite.server.runs.journal import Journal
from fedsite.server.strategies.strategy import ServerState
from fedsite.simulations.engine import Judge, Round, Scale, Simulated
from fedsite.simulations.flower import federation as flower_federation
from fedsite.simulations.flower import site as flower_site
from fedsite.simulations.flower.federation import SimulatedFederation
from fedsite.simulations.runs.material import Material
from fedsite.simulations.vectorised import randomness, ray_cluster, workers
from fedsite.simulations.vectorised.job import Weights

if TYPE_CHECKING:
    from flwr.serverapp import Grid

    from fedsite.simulations.flower.client import Nodes
    from fedsite.simulations.flower.link import Traffic

NAME: Final = "flower"
_QUIET: Final = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def simulate(
    given: Material,
    scale: Scale,
    *,
    judge: Judge | None = None,
    initial: Weights | None = None,
    tell: Callable[[Round], None] = lambda done: None,
    traffic: Callable[[Sequence[Traffic]], None] = lambda found: None,
) -> Simulated:
    """Run the plan for `scale.rounds` rounds with a cohort of `scale.cohort` of its sites.

    Args:
        given: plan, data and what the engines make of them.
        scale: how much; `workers` actors of Ray take turns at being the sites. Executor and device are not asked.
        judge: the metric of a model.
        initial: weights to start from; the plan's own where there are none.
        tell: called after each round.
        traffic: called once, when the run is over, with the bytes of its messages.

    Raises:
        ConfigError: Ray is not installed, batches are not the plan's own, or the run did not come to its end.
        FedsiteError, PrivacyError: no site would agree to the plan, for the reason that is told.
        UnreachableError: nodes of Flower's simulation did not answer.
    """
    if given.job.epochs is not None:
        raise ConfigError(
            "epochs with simulation.engine flower",
            allowed="the plan's own batches: real sites know no others",
            next_step="simulation.engine=vectorised, or leave simulation.epochs out",
        )
    size = sum(_bytes(data) for data in given.sites.values())
    with tempfile.TemporaryDirectory(prefix="fedsite-flower-") as folder:
        made = flower_federation.make(given, scale, Path(folder), initial)
        flower_site.agrees(made.plan)
        environment = {**workers.ONE_THREAD, **_QUIET, "FLWR_HOME": str(Path(folder) / "flwr")}
        with (
            workers.environment(environment),
            _alone(),
            ray_cluster.running(cpus=scale.workers, gpus=0, store_bytes=2 * size),
        ):
            run = _Run(given, scale, made, judge, tell)
            run.through_flower()
            traffic(run.traffic)
            return run.simulated()


class _Run:
    """One run, and what was heard of it."""

    def __init__(
        self,
        given: Material,
        scale: Scale,
        made: SimulatedFederation,
        judge: Judge | None,
        tell: Callable[[Round], None],
    ) -> None:
        self._given, self._scale, self._made = given, scale, made
        self._judge, self._tell = judge, tell
        self._stop = threading.Event()
        self._result: dict[str, Any] = {}
        self._error: Exception | None = None
        self._number = 0  # of the round whose cohort was drawn last
        self._rounds: list[Round] = []
        self._state: ServerState | None = None
        self._marked = time.perf_counter()
        self.traffic: Sequence[Traffic] = ()

    def through_flower(self) -> None:
        """Run to the end.

        Raises:
            ConfigError: it ended in another way.
        """
        from flwr.serverapp import ServerApp
        from flwr.simulation import run_simulation

        app = ServerApp()

        @app.main()  # type: ignore[untyped-decorator]
        def main(grid: Grid, _context: Any) -> None:
            try:
                self._drive(grid)
            except Exception as error:
                self._error = error

        try:
            with _hushed("flwr"), _on_interrupt(self._stop.set):
                run_simulation(
                    server_app=app,
                    client_app=self._nodes().app(),
                    num_supernodes=len(self._made.sites),
                    backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
                )
        finally:
            self._stop.set()
        if self._error is not None:
            raise self._error
        if self._result.get("outcome") != "completed":
            raise ConfigError(
                f"the run through Flower ended {self._result.get('outcome', 'without a result')}: "
                f"{self._result.get('reason', '')}{self._codes()}",
                allowed="a plan that every simulated site agrees to, and a model that trains",
            )

    def simulated(self) -> Simulated:
        """What came of it."""
        assert self._state is not None
        return Simulated(
            executor=NAME,
            passed_over={},
            workers=self._scale.workers,
            rounds=tuple(self._rounds),
            state=self._state,
        )

    def _nodes(self) -> Nodes:
        import ray

        from fedsite.simulations.flower.client import Nodes

        data = tuple(ray.put(site) for site in self._given.sites.values())
        return Nodes(folder=self._made.folder, data=data, job=self._given.job, plan=self._made.plan)

    def _drive(self, grid: Grid) -> None:
        """Flower's ServerApp: find out who is who, and have the coordinator drive."""
        from fedsite.simulations.flower import link as flower_link

        run, known = self._made.run, self._made.sites
        numbers = flower_link.numbers(grid, len(known), self._stop.is_set)
        sites = {node: replace(known[number], node_id=str(node)) for node, number in numbers.items()}
        link = flower_link.GridLink(grid, sites)
        with closing(Journal(run.journal_file, run.run_id)) as journal:
            journal.audit = self._heard
            self._result = Coordinator(
                run=run,
                link=link,
                journal=journal,
                key=self._made.key,
                run_key=sealing.make_run_key() if self._made.plan.protection.mode == "sealed" else None,
                stopping=self._stop.is_set,
                leaving=self._stop.is_set,
                shuffle=self._cohort_first,
            ).run()
        self.traffic = link.traffic

    def _cohort_first(self, ready: list[SiteLink]) -> None:
        """Put the sites first that the vectorised engine draws for this round."""
        self._number += 1
        chosen = {self._made.sites[number].site_id for number in self._drawn(self._number)}
        ready.sort(key=lambda site: (site.site_id not in chosen, site.name))

    def _drawn(self, number: int) -> NDArray[np.int64]:
        """The cohort of a round."""
        return randomness.cohort(self._given.job.seed, number, len(self._made.sites), self._scale.cohort)

    def _heard(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Judge and tell a round that has ended, from its checkpoint."""
        if kind == "started":
            self._marked = time.perf_counter()
        if kind != "round_finished":
            return
        seconds = time.perf_counter() - self._marked
        kept = checkpoint.latest(self._made.run.checkpoints)
        if kept is not None:
            self._state = kept[1]
        number, sites = int(facts["round"]), int(facts["participants"])
        due = number % self._scale.evaluate_every == 0 or number == self._scale.rounds
        drawn = self._drawn(number)
        counted = self._made.plan.weighted and sites == len(drawn)
        done = Round(
            number=number,
            drawn=int(facts["asked"]),
            sites=sites,
            weight=int(self._given.population.counts[drawn].sum()) if counted else sites,
            seconds=seconds,
            metric=self._judge(self._state.params) if self._judge and self._state and due else None,
            outcome="too-few" if facts["outcome"] == "abandoned" else "done",
        )
        self._rounds.append(done)
        self._tell(done)
        self._marked = time.perf_counter()

    def _codes(self) -> str:
        """Why sites said no, where they did."""
        codes = sorted({str(site["code"]) for site in self._result.get("sites", []) if site.get("code")})
        return f" (sites said {', '.join(codes)})" if codes else ""


@contextmanager
def _alone() -> Iterator[None]:
    """Without RAY_ADDRESS: the sites' directories are on this machine."""
    address = os.environ.pop(ray_cluster.ADDRESS, None)
    try:
        yield
    finally:
        if address is not None:
            os.environ[ray_cluster.ADDRESS] = address


@contextmanager
def _hushed(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _on_interrupt(first: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls `first` before it raises: Flower waits for its ServerApp, which has to know by then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = signal.getsignal(signal.SIGINT)

    def interrupted(number: int, frame: Any) -> None:
        first()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, found)


def _bytes(data: Any) -> int:
    return sum(part.x.nbytes + part.y.nbytes + part.time.nbytes for part in (data.train, data.holdout))
