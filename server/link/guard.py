"""Who may call what: the rules in front of Flower's SuperLink, which lets anybody at its port start a run.

Rules of the public listener (TLS):
1. `/enrol` is open: a token is what counts there.
2. Everything else needs the certificate of an enrolled, unrevoked site: none is 401, an unknown or revoked one 403.
3. `/v1/fleet/*`, minus registering and unregistering, also needs the node key of that same site in Flower's header.
4. A site with the explicit setting `supernode=true` may use the fleet routes with its node key alone, for as long as
   its certificate is valid.
5. `/releases/*` is for certificate holders, and so are `/renew` and `/leave`, where the identity's signature counts as
   well. Nothing else exists: 404.
6. `/ping` is for certificate holders, to measure the way there and back.
Rules of the loopback listener: `/v1/runtime/*` has Flower's own task tokens and superexec secret; `/v1/control/*` and
`/admin/*` need the administration secret; `/health` is open.
The rules are asked on every request: a kept-alive connection outlives a revocation.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Protocol

FLEET_ROUTES = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)


OWN_ROUTES = frozenset({"/renew", "/leave"})  # what a site says of its own certificate


class Listener(StrEnum):
    """The door a request came through."""

    PUBLIC = "public"
    LOOPBACK = "loopback"


class Target(StrEnum):
    """Which application answers."""

    FLOWER = "flower"
    ENROLMENT = "enrolment"
    RELEASES = "releases"
    PING = "ping"
    ADMIN = "admin"
    HEALTH = "health"


BODY_LIMITS: Mapping[tuple[Listener, Target], int] = {  # bytes
    (Listener.PUBLIC, Target.FLOWER): 16 << 20,
    (Listener.PUBLIC, Target.ENROLMENT): 64 << 10,
    (Listener.PUBLIC, Target.PING): 16 << 20,
    (Listener.LOOPBACK, Target.FLOWER): 64 << 20,
    (Listener.LOOPBACK, Target.ADMIN): 1 << 20,
}


class Known(Protocol):
    """What the rules read of a site."""

    @property
    def site_id(self) -> str: ...
    @property
    def revoked(self) -> str | None: ...
    @property
    def expires(self) -> datetime: ...
    @property
    def supernode(self) -> bool: ...


class Registry(Protocol):
    """Enrolled sites, by what they present."""

    def by_certificate(self, der: bytes) -> Known | None: ...
    def by_node_key(self, key: bytes) -> Known | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the rules read of a request. `path` is the decoded path that routing will use."""

    listener: Listener
    method: str
    path: str
    certificate: bytes | None = None  # DER
    node_key: str | None = None  # Flower's header, base64
    bearer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """The request goes on."""

    target: Target
    site_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """The request ends here; the reason stays in our log."""

    status: HTTPStatus
    reason: str


def decide(asked: Asked, registry: Registry, *, secret: str, now: datetime) -> Allow | Deny:
    """Apply the rules above to one request."""
    if asked.listener is Listener.LOOPBACK:
        return _decide_loopback(asked, secret)
    if asked.path == "/enrol":
        if asked.method not in ("GET", "POST"):
            return Deny(status=HTTPStatus.METHOD_NOT_ALLOWED, reason="method")
        return Allow(target=Target.ENROLMENT)
    if asked.certificate is None:
        return _decide_without_certificate(asked, registry, now)
    site = registry.by_certificate(asked.certificate)
    refused = _refuse(site, now)
    if refused is not None or site is None:
        return refused or Deny(status=HTTPStatus.FORBIDDEN, reason="unknown certificate")
    if asked.path in FLEET_ROUTES and asked.method == "POST":
        owner = _key_owner(asked.node_key, registry)
        if owner is None or owner.site_id != site.site_id:
            return Deny(status=HTTPStatus.FORBIDDEN, reason="certificate and node key are not of one site")
        return Allow(target=Target.FLOWER, site_id=site.site_id)
    if asked.path in OWN_ROUTES and asked.method == "POST":
        return Allow(target=Target.ENROLMENT, site_id=site.site_id)
    if asked.path.startswith("/releases/") and asked.method in ("GET", "HEAD"):
        return Allow(target=Target.RELEASES, site_id=site.site_id)
    if asked.path == "/ping" and asked.method == "POST":
        return Allow(target=Target.PING, site_id=site.site_id)
    return Deny(status=HTTPStatus.NOT_FOUND, reason="no such route")


def _decide_without_certificate(asked: Asked, registry: Registry, now: datetime) -> Allow | Deny:
    if asked.path in FLEET_ROUTES and asked.method == "POST":
        owner = _key_owner(asked.node_key, registry)
        if owner is not None and owner.supernode and _refuse(owner, now) is None:
            return Allow(target=Target.FLOWER, site_id=owner.site_id)
    return Deny(status=HTTPStatus.UNAUTHORIZED, reason="no client certificate")


def _decide_loopback(asked: Asked, secret: str) -> Allow | Deny:
    if asked.path == "/health" and asked.method == "GET":
        return Allow(target=Target.HEALTH)
    if asked.path.startswith("/v1/runtime/"):
        return Allow(target=Target.FLOWER)
    if asked.path.startswith(("/v1/control/", "/admin/")):
        if not hmac.compare_digest((asked.bearer or "").encode(), secret.encode()):
            return Deny(status=HTTPStatus.UNAUTHORIZED, reason="wrong or no administration secret")
        return Allow(target=Target.ADMIN if asked.path.startswith("/admin/") else Target.FLOWER)
    return Deny(status=HTTPStatus.NOT_FOUND, reason="no such route")


def _refuse(site: Known | None, now: datetime) -> Deny | None:
    if site is None:
        return Deny(status=HTTPStatus.FORBIDDEN, reason="unknown certificate")
    if site.revoked is not None:
        return Deny(status=HTTPStatus.FORBIDDEN, reason=f"site {site.site_id} is revoked")
    if now >= site.expires:
        return Deny(status=HTTPStatus.FORBIDDEN, reason=f"certificate of site {site.site_id} has expired")
    return None


def _key_owner(header: str | None, registry: Registry) -> Known | None:
    if header is None:
        return None
    try:
        return registry.by_node_key(base64.b64decode(header, validate=True))
    except (binascii.Error, ValueError):
        return None
