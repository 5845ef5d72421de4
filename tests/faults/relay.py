"""A TCP relay in front of a server's port, to be cut and mended: what a site has of a link that comes and goes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tests.connect_proxy import accept, copy


class Relay:
    """Listens on `port` of this machine and leads to another one; serves from threads until `close`."""

    def __init__(self, port: int, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", port))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._cut = False
        self.refused = 0  # connections while it was cut
        threading.Thread(target=accept, args=(self._listener, self._lead), daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and take none."""
        with self._lock:
            self._cut = True
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self._cut = False

    def wait_refused(self, count: int = 1, within_s: float = 60.0) -> None:
        """Until so many connections were refused."""
        until = time.monotonic() + within_s
        while self.refused < count:
            assert time.monotonic() < until, "nobody calls"
            time.sleep(0.02)

    def close(self) -> None:
        """End."""
        self.cut()
        self._listener.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _lead(self, client: socket.socket) -> None:
        if self._cut:
            self.refused += 1
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:  # nobody there: the relay outlives a server that is restarted
            client.close()
            return
        with self._lock:
            self._pairs.append((client, server))
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=copy, args=(source, sink), daemon=True).start()
