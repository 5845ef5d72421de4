"""The ServerApp: one process drives one attempt at one run, if it wins the epoch it was started for.

Named by the thin bundle (server/bundle), loaded from the installed package. Imports no torch: a round needs none.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedsite.protocol import sealing, storage
from fedsite.protocol.encoding import enc, sha256
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.plan import RoundPlan
from fedsite.server.audit_log import RunTrail, open_log
from fedsite.server.carried.link import BothLinks, CarriedLink
from fedsite.server.home import ServerHome
from fedsite.server.link.flower_grid import FlowerLink
from fedsite.server.link.flower_push import forgiving
from fedsite.server.rounds.coordinator import Coordinator
from fedsite.server.runs import ending
from fedsite.server.runs.folder import RunDirectory
from fedsite.server.runs.journal import Journal

app = ServerApp()

_log = logging.getLogger(__name__)


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """Flower's entry point."""
    home = ServerHome.default()
    run = RunDirectory(home.runs / str(context.run_config["fedsite-run"]))
    drive(grid, home, run, epoch=int(context.run_config["fedsite-epoch"]), owner=str(context.run_id))


def drive(grid: Grid, home: ServerHome, run: RunDirectory, *, epoch: int, owner: str) -> bool:
    """Drive the run; False when another process has this epoch, or there is a newer one.

    Args:
        grid: Flower's way to the nodes.
        home: the server's state.
        run: the run.
        epoch: which start of it this is, from 1: attempt numbers of messages follow from it.
        owner: who we are, for the journal.
    """
    # Flower may start a task twice; whoever comes second has nothing to say to any site.
    with contextlib.closing(Journal(run.journal_file, run.run_id)) as journal, _logging(home.logs, run.run_id):
        if not journal.claim(epoch, owner):
            _log.warning("run %s: epoch %s is not ours", run.run_id, epoch)
            return False
        with _signals() as told:
            try:
                _coordinate(grid, home, run, journal, epoch, told)
            except FedsiteError as error:
                _log.exception("run %s could not be driven", run.run_id)
                ending.end(run, journal, "failed", str(error))
        return True


def _coordinate(
    grid: Grid, home: ServerHome, run: RunDirectory, journal: Journal, epoch: int, told: threading.Event
) -> None:
    from fedsite.server.release.build import Signer
    from fedsite.server.release.publication import Publication

    plan = run.plan()
    key = home.signing_key()
    trail = RunTrail(open_log(home), run.run_id)
    journal.audit = trail.mirror
    connected = FlowerLink(forgiving(grid), home.database, reply_bytes=plan.cost.bytes_up)
    link: FlowerLink | BothLinks = connected
    if plan.protection.mode != "secagg":  # whose stages are too many trips
        link = BothLinks(connected, CarriedLink(home.exchange, home.database, run.run_id))
    coordinator = Coordinator(
        run=run,
        link=link,
        journal=journal,
        key=key,
        run_key=run_key(plan, run, key),
        epoch=epoch,
        trail=trail,
        publish=Publication(Signer(home.releases, key, plan.federation)),
        leaving=lambda: told.is_set() or link.ended,
        stopping=lambda: told.is_set() or link.ended or run.stop_file.exists(),
    )
    coordinator.run()


def run_key(plan: RoundPlan, run: RunDirectory, key: SigningKey) -> sealing.RunKey | None:
    """The run's decryption key: the stored one, or a new one that is stored before any site hears of it.

    It is encrypted under a key derived from the federation's signing key: a copied run directory alone opens nothing.

    Raises:
        IntegrityError: the stored key was stored by another server.
    """
    if plan.protection.mode != "sealed":
        return None
    wrapping = sha256(enc("fedsite/run-key-wrapping/1", key.seed, run.run_id.encode("ascii")))
    if run.key_file.exists():
        return sealing.RunKey.load_encrypted(run.key_file, wrapping)
    made = sealing.make_run_key()
    made.save_encrypted(run.key_file, wrapping)
    return made


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """SIGTERM and SIGINT ask for the end of the run; a second one gets Flower's own handling."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, _frame: FrameType | None) -> None:
        told.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, stop)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _logging(folder: Path, run_id: str) -> Iterator[None]:
    """What the round loop has to say goes to a file of the run's own."""
    storage.private_directory(folder)
    handler = logging.FileHandler(folder / f"run-{run_id}.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("fedsite")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
