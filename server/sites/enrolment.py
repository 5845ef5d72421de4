"""Enrolment: a token and a site's public keys in, a certificate, a signed site document and a node id out.

A token works once. The same request again gets the same answer; a site that lost its certificate, or whose certificate
has run out, joins again with a new token and the same keys, and keeps its name and its budget. A site whose certificate
is in force renews it itself, and leaves by its own word: both need that certificate and its identity's signature.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Awaitable, Callable
from datetime import datetime

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from fedsite.protocol import certificates, certified, documents, instants, renewal, shape, site_document, tokens
from fedsite.protocol.enrolment import Admission, Answer, Offer, open_request, refusal, sign_answer
from fedsite.protocol.errors import FedsiteError, RefusalCode, StorageError, TrustError
from fedsite.protocol.keys import VerifyKey, check_node_key
from fedsite.protocol.site_document import SiteDocument
from fedsite.protocol.tokens import Token
from fedsite.server.audit_log import Append, nowhere, token_name, told
from fedsite.server.home import ServerKeys
from fedsite.server.link.guarded import PEER_SCOPE_KEY
from fedsite.server.sites.fleet import Fleet
from fedsite.server.sites.fleet_file import Site, Superseded

_LOG = logging.getLogger(__name__)

_JSON = "application/json"
_ASK_AGAIN = "ask the central team for a new token: fedsite token create --expires 1h"


class Enrolment:
    """The service behind `/enrol`, `/renew` and `/leave`."""

    def __init__(
        self,
        keys: ServerKeys,
        fleet: Fleet,
        *,
        register_node: Callable[[bytes], str],
        retire_node: Callable[[str], None],
        clock: Callable[[], datetime],
        audit: Append = nowhere,
    ) -> None:
        """Put it together.

        Args:
            keys: what is signed with.
            fleet: where it is written.
            register_node: makes a node of Flower's for a public key (PEM), or finds it; returns the node id.
            retire_node: ends a node by its id; one that is gone already is not an error.
            clock: UTC.
            audit: told of every site that comes, renews or leaves, before that holds.
        """
        self._keys = keys
        self._fleet = fleet
        self._register_node = register_node
        self._retire_node = retire_node
        self._clock = clock
        self._audit = audit
        self._lock = threading.Lock()

    def offer(self) -> bytes:
        """What anybody may know."""
        offer = Offer(federation=shape.plain(self._keys.federation), time=instants.text(self._clock()))
        return documents.canonical(shape.plain(offer))

    def enrol(self, body: bytes, *, carried: bool = False) -> bytes:
        """Answer one request.

        Args:
            body: the signed `fedsite.enrol/1`.
            carried: it came as a file, and so will this site's messages.

        Raises:
            DocumentError: malformed.
            TrustError: the token is forged, expired or used; the name or a key is somebody else's; wrong signature.
            StorageError: nothing was written.
        """
        request = open_request(body)
        now = self._clock()
        token = self._verify(request.token, now)
        identity, node_key = request.verify_key, check_node_key(request.node_key.encode("ascii"))
        certificates.requested_key(request.request)  # before anything is made for it
        with self._lock:
            used = self._fleet.token_use(token.nonce)
            if used is not None:
                if used.request == request.digest:
                    return used.answer
                raise TrustError(
                    "this token was used already",
                    allowed="a token of its own for each site",
                    next_step=_ASK_AGAIN,
                    refusal=RefusalCode.REPLAYED,
                )
            lost = self._replaced(token, request.name, identity.id)
            replaces = lost.site_id if lost is not None else ""
            known = self._fleet.check_free(request.name, identity.raw, node_key, replaces=replaces)
            site = Site(
                site_id=identity.id,
                name=request.name,
                node_id=known.node_id if known is not None else self._register_node(node_key),
                identity=identity.raw,
                node_key=node_key,
                certificate=b"",
                certified=b"",
                enrolled=known.enrolled if known is not None else instants.text(now),
                expires=now,
                labels=lost.labels if lost is not None else {},
                carried=carried,
            )
            site, answer = self._certify(site, request.request, now)
            facts = {**_facts(site), "token": token_name(token), "replaces": replaces, "carried": carried}
            with told(self._audit, "enrolled", facts):
                self._fleet.enrol(site, nonce=token.nonce, request=request.digest, answer=answer, replaces=replaces)
            if lost is not None:
                self._retire_node(lost.node_id)
        _LOG.warning("site %s enrolled as %s%s", site.site_id, site.name, f" for {replaces}" if replaces else "")
        return answer

    def admit(self, body: bytes) -> bytes:
        """Answer a request that came as a file, as `enrol` does; the answer brings the federation's document too."""
        return documents.canonical(shape.plain(Admission.of(self._keys.federation, self.enrol(body, carried=True))))

    def renew(self, certificate: bytes, body: bytes) -> bytes:
        """Answer a site's request for its next certificate.

        Args:
            certificate: DER of the one the request came under, as TLS checked it.
            body: the signed `fedsite.renew/1`.

        Raises:
            DocumentError: malformed.
            TrustError: not this site's, too old, said before; the key in it is the one in use, or not its own.
            StorageError: nothing was written.
        """
        now = self._clock()
        with self._lock:
            known, speaker = self._speaker(certificate)
            asked = renewal.open_renewal(body, speaker, now)
            site, answer = self._certify(known, asked.request, now)
            if certificates.same_key(site.certificate, certificate):
                raise TrustError(
                    "the request is for the key in use",
                    allowed="a key of its own for each certificate",
                    refusal=RefusalCode.REPLAYED,
                )
            with told(self._audit, "renewed", _facts(site)):
                self._fleet.renew(site, Superseded(certificate=certificate, expires=known.expires, stated=asked.time))
        _LOG.warning("site %s (%s) renewed its certificate to %s", site.site_id, site.name, site.expires.isoformat())
        return answer

    def leave(self, certificate: bytes, body: bytes) -> None:
        """Revoke a site at its own word; arguments and errors as of `renew`."""
        now = self._clock()
        with self._lock:
            known, speaker = self._speaker(certificate)
            renewal.open_departure(body, speaker, now)
            with told(self._audit, "left", _facts(known)):
                self._fleet.revoke(known.site_id, instants.text(now))
                self._retire_node(known.node_id)
        _LOG.warning("site %s (%s) left", known.site_id, known.name)

    def _verify(self, text: str, now: datetime) -> Token:
        try:
            return tokens.verify(text, self._keys.federation, now)
        except TrustError as error:
            error.next_step = error.next_step or _ASK_AGAIN
            raise

    def _replaced(self, token: Token, name: str, asking: str) -> Site | None:
        """The site that a token gives the place of, unless it is out already; `asking` is the id of who comes."""
        if not token.replaces:
            return None
        if token.replaces == asking:
            # It would be revoked by its own request, and told that it is in.
            raise TrustError(
                f"this token replaces {token.label or token.replaces}, and this host has that site's keys",
                allowed="a new host, with keys of its own",
                next_step="where the disk is not lost: fedsite token create, without --replaces",
                refusal=RefusalCode.WRONG_SITE,
            )
        lost = self._fleet.by_id(token.replaces)
        if lost is None or lost.name != name:
            raise TrustError(
                f"this token replaces {token.label or token.replaces}, not {name}",
                allowed="the name of the site it replaces",
                next_step="fedsite join without --name",
                refusal=RefusalCode.WRONG_SITE,
            )
        return None if lost.revoked else lost

    def _speaker(self, certificate: bytes) -> tuple[Site, renewal.Speaker]:
        """Whose certificate it is; the guard asked before, but a revocation may have come in between."""
        known = self._fleet.by_certificate(certificate)
        if known is None or known.revoked is not None:
            raise TrustError("this certificate is not in force", next_step=_ASK_AGAIN)
        return known, renewal.Speaker(
            federation=self._keys.federation.id,
            identity=VerifyKey(known.identity),
            certificate=certificates.fingerprint(certificate),
            last=self._fleet.stated(known.site_id),
        )

    def _certify(self, site: Site, request: str, now: datetime) -> tuple[Site, bytes]:
        """The site with a new certificate for the key in `request` (PEM), and the answer that tells it."""
        federation = self._keys.federation
        identity = VerifyKey(site.identity)
        certificate = certificates.issue_site(self._keys.authority, request, site.site_id, now)
        checked = certificates.check(certificate, federation, now)
        document = SiteDocument(
            federation=federation.id,
            site_id=site.site_id,
            name=site.name,
            identity=identity.text,
            node_key=site.node_key.decode("ascii"),
            certificate=checked.fingerprint,
            issued=instants.text(now),
            expires=instants.text(checked.not_after),
        )
        signed = site_document.sign(document, self._keys.signing).decode("utf-8")
        answer = Answer(site_id=site.site_id, node_id=site.node_id, certificate=certificate, site=signed)
        new = dataclasses.replace(
            site,
            certificate=certificates.der(certificate),
            certified=certified.issue(identity, checked.not_after, federation.id, self._keys.authority.key),
            expires=checked.not_after,
        )
        return new, sign_answer(answer, self._keys.signing)


def _facts(site: Site) -> dict[str, str]:
    """Of a site, for the audit log."""
    return {
        "site_id": site.site_id,
        "name": site.name,
        "certificate": certificates.fingerprint(site.certificate),
        "expires": instants.text(site.expires),
    }


def enrolment_app(enrolment: Enrolment) -> Starlette:
    """`GET /enrol` is the offer, `POST` there a request with a token; `/renew` and `/leave` come from known sites."""

    def offer(_request: HttpRequest) -> Response:
        return Response(enrolment.offer(), media_type=_JSON)

    def enrol(_certificate: bytes, body: bytes) -> bytes:
        return enrolment.enrol(body)

    def leave(certificate: bytes, body: bytes) -> bytes:
        enrolment.leave(certificate, body)
        return b"{}"

    posts = {"/enrol": enrol, "/renew": enrolment.renew, "/leave": leave}
    routes = [Route(path, _answering(act), methods=["POST"]) for path, act in posts.items()]
    return Starlette(routes=[Route("/enrol", offer, methods=["GET"]), *routes])


def _answering(act: Callable[[bytes, bytes], bytes]) -> Callable[[HttpRequest], Awaitable[Response]]:
    async def answer(request: HttpRequest) -> Response:
        from starlette.concurrency import run_in_threadpool

        body = await request.body()
        try:
            certificate = request.scope.get(PEER_SCOPE_KEY) or b""
            return Response(await run_in_threadpool(act, certificate, body), media_type=_JSON)
        except FedsiteError as error:
            _LOG.warning("%s refused (%s): %s", request.url.path, error.refusal, tokens.redact(error.found))
            status = 403 if isinstance(error, TrustError) else 507 if isinstance(error, StorageError) else 400
            return Response(refusal(error), status_code=status, media_type=_JSON)

    return answer
