"""The commands' way to the running server: its loopback administration, with the secret its owner alone can read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from fedsite.protocol.enrolment import read_refusal
from fedsite.protocol.errors import ConfigError, FedsiteError, TrustError, UnreachableError
from fedsite.server.home import ServerHome, read_running

TIMEOUT_S = 30.0
_NEXT = "fedsite server up"


class AdminClient:
    """One connection to the running server of a state directory."""

    def __init__(self, home: ServerHome) -> None:
        """Find the server.

        Raises:
            ConfigError: it was never set up.
            UnreachableError: it is not running.
            TrustError, StorageError: the secret is missing, or readable by others.
        """
        home.federation()
        running = read_running(home)
        if not _ours(running.get("link_pid")):
            # Left by a crash: whoever has that port now, another user of this machine perhaps, must not get the secret.
            raise UnreachableError("the server is not running: it ended without a word", next_step=_NEXT)
        self._http = httpx.Client(
            base_url=f"http://{running['loopback']}/admin",
            headers={"authorization": f"Bearer {home.read_admin_secret()}"},
            timeout=TIMEOUT_S,
            trust_env=False,
        )

    @classmethod
    def open(cls, directory: Path | None = None) -> AdminClient:
        """The server of `directory` (the one holding federation.json), else of the environment's."""
        return cls(ServerHome(directory) if directory is not None else ServerHome.default())

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(self, _k: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self._http.close()

    def sites(self) -> list[dict[str, Any]]:
        """Every site (fedsite.site-view/1)."""
        return list(self._ask("GET", "/sites"))

    def site(self, name: str) -> dict[str, Any]:
        """One site by name or id."""
        return dict(self._ask("GET", f"/sites/{quote(name, safe='')}"))

    def revoke(self, name: str) -> dict[str, Any]:
        """Revoke a site: its next request is refused. Done already is not an error."""
        return dict(self._ask("POST", f"/sites/{quote(name, safe='')}/revoke"))

    def label(self, name: str, changes: Mapping[str, str | None]) -> dict[str, Any]:
        """Set labels; None removes one."""
        return dict(self._ask("POST", f"/sites/{quote(name, safe='')}/labels", dict(changes)))

    def carry(self, name: str, carried: bool) -> dict[str, Any]:
        """Have a site's messages carried as files, or sent again."""
        return dict(self._ask("POST", f"/sites/{quote(name, safe='')}/carried", {"carried": carried}))

    def admit(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Enrol a site whose signed request came as a file; returns fedsite.admission/1."""
        return dict(self._ask("POST", "/enrolments", request))

    def start_run(self, run_id: str, epoch: int) -> str:
        """Start a Flower run for a fedsite run; journal the epoch first. Returns Flower's run id, decimal text."""
        return str(self._ask("POST", "/runs", {"run_id": run_id, "epoch": epoch})["flower_run_id"])

    def stop_run(self, flower_run_id: str) -> bool:
        """Stop a Flower run; False when it was over already."""
        return bool(self._ask("POST", f"/runs/{quote(flower_run_id, safe='')}/stop")["stopped"])

    def runs(self) -> list[dict[str, Any]]:
        """Flower's runs of ours: flower_run_id, run_id, epoch, status, detail."""
        return list(self._ask("GET", "/runs"))

    def status(self) -> dict[str, Any]:
        """Node ids that are online, and the number of unrevoked sites."""
        return dict(self._ask("GET", "/status"))

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            answer = self._http.request(method, path, content=json.dumps(body).encode() if body is not None else None)
        except httpx.TransportError as error:
            raise UnreachableError(f"the server does not answer ({type(error).__name__})", next_step=_NEXT) from None
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise TrustError("the server does not take this administration secret", next_step="restart the server")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise ConfigError(f"the server has no {path}", next_step="compare versions: fedsite --version")
        if answer.status_code != httpx.codes.OK:
            raise read_refusal(answer.content) or FedsiteError(
                f"the server answered with HTTP {answer.status_code}", next_step="look into server/logs/flower_link.log"
            )
        return answer.json()


def _ours(pid: object) -> bool:
    """Whether this process is there and may be signalled by us."""
    if not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
