"""A second address for /metrics alone, without a key: for a network that only operators reach.

Every worker listens there, and each answers for all. A thread of its own: it answers also while the event
loop does not.
"""

import ipaddress
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# A client that says or takes nothing for so long is left alone.
_SECONDS = 5.0
_PLAIN = "text/plain; charset=utf-8"

# The text for an `Accept` header, and its media type.
Render = Callable[[str], tuple[bytes, str]]


class Listener:
    """Answers from `start` to `stop`."""

    def __init__(self, address: str, render: Render) -> None:
        """`address`: as `split_address` takes it."""
        self._where = split_address(address)
        self._render = render
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen. Raises OSError."""
        self._server = _Server(self._where, self._render)
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def stop(self) -> None:
        """Listen no more. Blocking, for half a second at most: call it in a thread."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def split_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:9464` or `[::1]:9464`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65535:  # noqa: PLR2004
        raise ValueError("expected an address and a port, such as 127.0.0.1:9464")
    found = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    if (found.version == 6) != host.startswith("["):  # noqa: PLR2004
        raise ValueError("an address of IPv6 stands in brackets, such as [::1]:9464")
    return str(found), int(port)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # All workers have the same address.
    allow_reuse_port = True

    def __init__(self, where: tuple[str, int], render: Render) -> None:
        self.address_family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        self.render = render
        super().__init__(where, _Request)

    def server_bind(self) -> None:
        """Without the look-up of a name that HTTPServer does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is nobody's matter."""


class _Request(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SECONDS
    protocol_version = "HTTP/1.1"
    server_version = "sluicegate"
    sys_version = ""

    def do_GET(self) -> None:
        """The metrics, and nothing else."""
        if self.path.partition("?")[0] != "/metrics":
            self._answer(404, b"Here is /metrics and nothing else.\n", _PLAIN)
            return
        text, media_type = self.server.render(self.headers.get("Accept", ""))
        self._answer(200, text, media_type)

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, status: int, body: bytes, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """No log of its own."""
