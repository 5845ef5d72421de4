"""The same site as a Flower ClientApp, for people who already run `flower-supernode` with this package installed.

The SuperNode keeps the connection; identity, policy, budget and the handler are those of the site's state directory,
which `fedsite join` made. One process for each message: slower than the agent, and refused while the agent runs.
"""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp


def answer(message: Message, _context: Context) -> Message:
    """Hand the frame to the handler and its reply back; the kind stands in our signed header, not in Flower's type."""
    from fedsite.client import assembly, settings
    from fedsite.protocol.records import from_record, to_record

    directory = settings.state_directory()
    frame = from_record(message.content)
    with assembly.only_one(directory):
        parts = assembly.assemble(directory, settings.load(directory, []), _fetch)
        try:
            reply = parts.handler.handle(frame)
        finally:
            parts.worker.close()
    return Message(to_record(reply), reply_to=message)


def _fetch(path: str, limit: int) -> bytes:
    """Releases come over the site's own connection: Flower's has no downloads."""
    from fedsite.client import enrolment, settings

    connection = enrolment.open_connection(settings.state_directory())
    try:
        return connection.get(path, limit=limit)
    finally:
        connection.close()


app = ClientApp()
for kind in (app.query, app.train, app.evaluate):
    kind()(answer)
