"""Uploads of instructions: an object that nobody waits for any more is no error of the run.

A site may confirm a message before its last object is up: ours needs only the one record of a small frame, and a
hostile one may confirm at once. The SuperLink then forgets the message's objects and refuses the rest of the upload,
which Flower's `HttpGrid` takes for the end of the ServerApp. A site that was left without its instruction does not
answer: that is its outcome of the round, by the deadline.
Private parts of Flower used: the grid's runtime client.
"""

from __future__ import annotations

import logging
from typing import Any

from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse

_log = logging.getLogger(__name__)


def forgiving(grid: Any) -> Any:
    """The same grid (Flower's, of the ServerApp), whose uploads may be declined one by one."""
    grid._client = _Client(grid._runtime_client)
    return grid


class _Client:
    """Flower's runtime client, but for one answer."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def PushObject(self, request: PushObjectRequest) -> PushObjectResponse:  # noqa: N802
        """Upload; a refusal is noted, and told as done."""
        answer = self._client.PushObject(request)
        if not answer.stored:
            _log.info("object %s is no longer wanted", request.object_id)
        return PushObjectResponse(stored=True)
