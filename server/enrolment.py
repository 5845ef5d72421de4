"""Enrolment: a token and a site's public keys in, a certificate, a signed site document and a node id out.

A token works once. The same request again gets the same answer; a site that lost its certificate, or whose certificate
runs out, joins again with a new token and the same keys, and keeps its name and its budget.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from fedsite.protocol import certificates, certified, documents, instants, shape, site_document, tokens
from fedsite.protocol.enrolment import Answer, Offer, Request, open_request, refusal, sign_answer
from fedsite.protocol.errors import FedsiteError, StorageError, TrustError
from fedsite.protocol.keys import check_node_key
from fedsite.protocol.site_document import SiteDocument
from fedsite.protocol.tokens import Token
from fedsite.server.fleet import Fleet, Site
from fedsite.server.home import ServerKeys

_LOG = logging.getLogger(__name__)

_JSON = "application/json"
_ASK_AGAIN = "ask the central team for a new token: fedsite token create --expires 1h"


class Enrolment:
    """The service behind `/enrol`."""

    def __init__(
        self, keys: ServerKeys, fleet: Fleet, *, register_node: Callable[[bytes], str], clock: Callable[[], datetime]
    ) -> None:
        """`register_node` makes a node of Flower's for a public key (PEM), or finds it; it returns the node id."""
        self._keys = keys
        self._fleet = fleet
        self._register_node = register_node
        self._clock = clock
        self._lock = threading.Lock()

    def offer(self) -> bytes:
        """What anybody may know."""
        offer = Offer(federation=shape.plain(self._keys.federation), time=instants.text(self._clock()))
        return documents.canonical(shape.plain(offer))

    def enrol(self, body: bytes) -> bytes:
        """Answer one request.

        Raises:
            DocumentError: malformed.
            TrustError: the token is forged, expired or used; the name or a key is somebody else's; wrong signature.
            StorageError: nothing was written.
        """
        request = open_request(body)
        now = self._clock()
        token = self._verify(request.token, now)
        with self._lock:
            used = self._fleet.token_use(token.nonce)
            if used is not None:
                if used.request == request.digest:
                    return used.answer
                raise TrustError(
                    "this token was used already",
                    allowed="a token of its own for each site",
                    next_step=_ASK_AGAIN,
                )
            identity = request.verify_key.raw
            node_key = check_node_key(request.node_key.encode("ascii"))
            known = self._fleet.check_free(request.name, identity, node_key)
            site, answer = self._issue(request, known, now)
            self._fleet.enrol(site, nonce=token.nonce, request=request.digest, answer=answer)
        _LOG.warning("site %s enrolled as %s", site.site_id, site.name)
        return answer

    def _verify(self, text: str, now: datetime) -> Token:
        try:
            return tokens.verify(text, self._keys.federation, now)
        except TrustError as error:
            error.next_step = error.next_step or _ASK_AGAIN
            raise

    def _issue(self, request: Request, known: Site | None, now: datetime) -> tuple[Site, bytes]:
        federation = self._keys.federation
        site_id = request.verify_key.id
        node_key = check_node_key(request.node_key.encode("ascii"))
        certificate = certificates.issue_site(self._keys.authority, request.request, site_id, now)
        checked = certificates.check(certificate, federation, now)
        document = SiteDocument(
            federation=federation.id,
            site_id=site_id,
            name=request.name,
            identity=request.identity,
            node_key=node_key.decode("ascii"),
            certificate=checked.fingerprint,
            issued=instants.text(now),
            expires=instants.text(checked.not_after),
        )
        node_id = known.node_id if known is not None else self._register_node(node_key)
        signed = site_document.sign(document, self._keys.signing).decode("utf-8")
        answer = Answer(site_id=site_id, node_id=node_id, certificate=certificate, site=signed)
        site = Site(
            site_id=site_id,
            name=request.name,
            node_id=node_id,
            identity=request.verify_key.raw,
            node_key=node_key,
            certificate=certificates.der(certificate),
            certified=certified.issue(request.verify_key, checked.not_after, federation.id, self._keys.authority.key),
            enrolled=known.enrolled if known is not None else instants.text(now),
            expires=checked.not_after,
        )
        return site, sign_answer(answer, self._keys.signing)


def enrolment_app(enrolment: Enrolment) -> Starlette:
    """`GET /enrol` is the offer, `POST /enrol` the request."""

    def offer(_request: HttpRequest) -> Response:
        return Response(enrolment.offer(), media_type=_JSON)

    async def enrol(request: HttpRequest) -> Response:
        from starlette.concurrency import run_in_threadpool

        body = await request.body()
        try:
            return Response(await run_in_threadpool(enrolment.enrol, body), media_type=_JSON)
        except FedsiteError as error:
            _LOG.warning("enrolment refused: %s", tokens.redact(error.found))
            status = 403 if isinstance(error, TrustError) else 507 if isinstance(error, StorageError) else 400
            return Response(refusal(error), status_code=status, media_type=_JSON)

    return Starlette(routes=[Route("/enrol", offer, methods=["GET"]), Route("/enrol", enrol, methods=["POST"])])
