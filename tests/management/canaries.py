"""Listeners that nobody may ever reach: every connection is counted."""

from __future__ import annotations

import selectors
import socket
import threading
from types import TracebackType
from typing import Self


class Canaries:
    """One port on all addresses of this machine, IPv4 and IPv6; answers with a list of models."""

    def __enter__(self) -> Self:
        self.reached: list[str] = []
        self._sockets = [socket.socket(socket.AF_INET)]
        self._sockets[0].bind(("0.0.0.0", 0))
        self.port: int = self._sockets[0].getsockname()[1]
        if socket.has_ipv6:
            six = socket.socket(socket.AF_INET6)
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            six.bind(("::", self.port))
            self._sockets.append(six)
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="canaries", daemon=True)
        for found in self._sockets:
            found.listen(64)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join(10)
        for found in (*self._sockets, self._stopped):
            found.close()

    def _serve(self) -> None:
        selector = selectors.DefaultSelector()
        for found in (*self._sockets, self._stopped):
            selector.register(found, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is self._stopped:
                    selector.close()
                    return
                assert isinstance(key.fileobj, socket.socket)
                connection, peer = key.fileobj.accept()
                self.reached.append(str(peer))
                with connection:
                    connection.settimeout(2)
                    connection.recv(65536)
                    body = b'{"data":[{"id":"canary"}]}'
                    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                    connection.sendall(head % len(body) + body)
