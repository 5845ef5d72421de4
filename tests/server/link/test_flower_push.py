"""A site that confirms early costs no run."""

from __future__ import annotations

from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse

from fedsite.server.link.flower_push import forgiving


class Client:
    """Stores nothing whose name is `gone`."""

    closed = False

    def PushObject(self, request: PushObjectRequest) -> PushObjectResponse:
        return PushObjectResponse(stored=request.object_id != "gone")

    def close(self) -> None:
        self.closed = True


class Grid:
    def __init__(self) -> None:
        self._client = Client()

    @property
    def _runtime_client(self) -> Client:
        return self._client


def test_a_declined_upload_is_no_error() -> None:
    grid = forgiving(Grid())
    assert grid._runtime_client.PushObject(PushObjectRequest(object_id="gone")).stored
    assert grid._runtime_client.PushObject(PushObjectRequest(object_id="kept")).stored


def test_everything_else_is_flowers_own() -> None:
    grid = Grid()
    inner = grid._client
    forgiving(grid)._runtime_client.close()
    assert inner.closed
