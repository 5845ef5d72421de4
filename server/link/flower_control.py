"""Runs as Flower knows them: started with the thin bundle, listed, stopped. In the link process only.

Private parts of Flower used here: `flwr.cli.build`, the control handlers, and the link state.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from fedsite.protocol.errors import ConfigError, FedsiteError

if TYPE_CHECKING:
    from flwr.server.superlink.linkstate import LinkState, LinkStateFactory

BUNDLE_FILES = ("pyproject.toml", "README.md")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerRun:
    """One Flower run of a fedsite run: a resumed fedsite run has several."""

    flower_run_id: str  # decimal text: an unsigned 64-bit integer does not fit JSON
    run_id: str  # ours
    epoch: int
    status: str  # pending, starting, running, finished
    detail: str  # Flower's sub-status and details, empty while it runs


def thin_bundle() -> bytes:
    """The FAB: it names the installed code and carries none.

    Composed from package data, so that an installed wheel can do it without a checkout.
    """
    from flwr.cli.build import build_fab_from_files

    folder = resources.files("fedsite.server").joinpath("bundle")
    return build_fab_from_files({name: folder.joinpath(name).read_bytes() for name in BUNDLE_FILES})[0]


def start_run(state: LinkState, *, run_id: str, epoch: int) -> str:
    """Start a Flower run for `run_id`; returns Flower's run id.

    There is no idempotency key: the caller journals `epoch` first, and the ServerApp's first act is a compare-and-set
    of its Flower run id on that epoch, which a second start loses.

    Raises:
        FedsiteError: Flower refused.
    """
    from flwr.common.serde import user_config_to_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.proto.fab_pb2 import Fab
    from flwr.superlink.servicer.control import control_handlers

    config = {"fedsite-run": run_id, "fedsite-epoch": epoch}
    response = control_handlers.start_run(
        StartRunRequest(fab=Fab(content=thin_bundle()), override_config=user_config_to_proto(config)),
        account=_account(),
        state=state,
        fleet_api_type=None,
    )
    if not response.HasField("run_id"):
        raise FedsiteError("Flower did not start the run", next_step="look into server/logs/flower_link.log")
    return str(response.run_id)


def stop_run(state: LinkState, flower_run_id: str) -> bool:
    """Stop a Flower run; False when it was over already.

    Raises:
        ConfigError: there is no such run.
    """
    number = _number(flower_run_id)
    if not state.get_run_info(run_ids=[number]):
        raise ConfigError(f"no Flower run {flower_run_id}", next_step="fedsite runs list")
    return bool(state.stop_run(number))


def list_runs(state: LinkState) -> list[FlowerRun]:
    """Every Flower run that is one of ours."""
    found = []
    for run in state.get_run_info():
        config: dict[str, Any] = dict(run.override_config)
        if "fedsite-run" not in config:
            continue
        found.append(
            FlowerRun(
                flower_run_id=str(run.run_id),
                run_id=str(config["fedsite-run"]),
                epoch=int(config.get("fedsite-epoch", 0)),
                status=run.status.status,
                detail=" ".join(part for part in (run.status.sub_status, run.status.details) if part),
            )
        )
    return found


class Nodes:
    """Flower's table of nodes, as enrolment and administration use it."""

    def __init__(self, factory: LinkStateFactory) -> None:
        self._factory = factory

    @property
    def state(self) -> LinkState:
        """The link state."""
        return self._factory.state()

    def register(self, public_key: bytes) -> str:
        """The id of a new node with this key (PEM), or of the one that has it: a crash may have come in between."""
        from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID

        known = self.state.get_node_id_by_public_key(public_key)
        if known is not None:
            return str(known)
        return str(self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, public_key, 0))

    def remove(self, node_id: str) -> None:
        """Take a node out of every roster; one that is gone already is not an error."""
        from flwr.common.constant import NOOP_FLWR_AID

        with contextlib.suppress(ValueError):
            self.state.delete_node(NOOP_FLWR_AID, _number(node_id))

    def online(self) -> set[str]:
        """Ids of the nodes whose last heartbeat is not overdue."""
        return {str(node.node_id) for node in self.state.get_node_info(statuses=["online"])}


def _account() -> Any:
    from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
    from flwr.supercore.auth.typing import AccountInfo

    return AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)


def _number(text: str) -> int:
    if not text.isdigit():
        raise ConfigError(f"Flower run id {text!r}", allowed="a decimal number")
    return int(text)
