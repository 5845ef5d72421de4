"""A site's directory and a centre in one process: what is sent goes to the real service, without a network."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.identity import enrolment, introduction, pair
from fedsite.client.identity.renewal import CertificateRenewal
from fedsite.protocol import certificates
from fedsite.protocol.errors import FedsiteError
from fedsite.server import home as homes
from tests.centre import START, Centre


class Place:
    """A site's directory and the centre that its requests reach without a network."""

    def __init__(self, directory: Path, centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.centre = centre
        self.posts: list[str] = []
        self.failure: FedsiteError | None = None
        monkeypatch.setattr(introduction, "fetch_federation", lambda token, now: centre.federation)
        monkeypatch.setattr(introduction, "post", self._post)

    def _post(self, _federation: Any, path: str, body: bytes, tls: ssl.SSLContext | None = None) -> bytes:
        self.posts.append(path)
        if self.failure is not None:
            raise self.failure
        if path == "/enrol":
            return self.centre.service.enrol(body)
        assert tls is not None
        presented = certificates.der(pair.certificate(self.directory))
        if path == "/renew":
            return self.centre.service.renew(presented, body)
        self.centre.service.leave(presented, body)
        return b"{}"

    def clock(self) -> datetime:
        """The centre's time."""
        return self.centre.now

    def join(self, **more: Any) -> enrolment.Joined:
        """Join with a new token."""
        return enrolment.join(self.centre.token(), self.directory, name="alpha", clock=self.clock, **more)

    def renewal(self, used: Callable[[], None] = lambda: None) -> CertificateRenewal:
        """The agent's, without jitter."""
        return CertificateRenewal(self.directory, used, clock=self.clock, uniform=lambda: 0.5)

    def in_force(self) -> bool:
        """Whether the pair on the disk fits, and the centre takes its certificate for the next request."""
        pair.check(self.directory, self.centre.federation, self.clock())
        known = self.centre.fleet.by_certificate(certificates.der(pair.certificate(self.directory)))
        return known is not None and known.revoked is None


def killed(act: Callable[[], object], die_at: int) -> bool:
    """Run `act` in a child that is killed at step `die_at`: each rename is two, right before it and right after.

    So is each file that is removed. False where the child came to its end first.
    """
    child = os.fork()
    if child == 0:
        step, replace, unlink = [0], os.replace, os.unlink

        def passed() -> None:
            step[0] += 1
            if step[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        def counted(source: Any, target: Any) -> None:
            passed()
            replace(source, target)
            passed()

        def removed(path: Any, **more: Any) -> None:
            there = os.path.lexists(path)
            if there:
                passed()
            unlink(path, **more)
            if there:
                passed()

        os.replace, os.unlink = counted, removed
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def place_at(home: Path, now: datetime, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A site and its centre as they lie on the disk."""
    return Place(home / "site", Centre(homes.ServerHome(home / "server"), now=now), monkeypatch)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A host that has not joined, and its centre."""
    made = place_at(tmp_path, START, monkeypatch)
    yield made
    made.centre.fleet.close()


@pytest.fixture
def member(place: Place) -> Place:
    """The same, once it has joined as alpha."""
    place.join()
    place.posts.clear()
    return place
