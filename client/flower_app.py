"""The same site as a Flower ClientApp, for people who already run `flower-supernode` with this package installed.

The SuperNode keeps the connection; identity, policy, budget and the handler are those of the site's state directory,
which `fedsite join` made. One process for each message: slower than the agent, and refused while the agent runs.
"""

from __future__ import annotations

import logging

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedsite.protocol.messages import Frame
from fedsite.protocol.records import from_record, to_record

_LOG = logging.getLogger(__name__)


def answer(message: Message, _context: Context) -> Message:
    """Hand the frame to the handler and its reply back; the kind stands in our signed header, not in Flower's type.

    Raises:
        RuntimeError: there is no reply, not even one that says no.
    """
    try:
        reply = _handle(from_record(message.content))
    except Exception as error:
        _LOG.error("instruction not answered: %s", error, exc_info=not hasattr(error, "found"))
        # Flower sends an exception's text to the server: ours may name paths and processes of this host.
        raise RuntimeError("the site could not answer; its own log says why") from None
    return Message(to_record(reply), reply_to=message)


def _handle(frame: Frame) -> Frame:
    from fedsite.client import assembly, settings, state_directory

    directory = settings.state_directory()
    with state_directory.only_one(directory):
        parts = assembly.assemble(directory, settings.SettingsFile(directory), _fetch)
        try:
            return parts.handler.handle(frame)
        finally:
            parts.worker.close()


def _fetch(path: str, limit: int) -> bytes:
    """Releases come over the site's own connection: Flower's has no downloads."""
    from fedsite.client import settings
    from fedsite.client.identity import enrolment

    connection = enrolment.open_connection(settings.state_directory())
    try:
        return connection.get(path, limit=limit)
    finally:
        connection.close()


app = ClientApp()
for kind in (app.query, app.train, app.evaluate):
    kind()(answer)
