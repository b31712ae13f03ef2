"""One request and its answer: the ASGI connection, and the headers that every response owes."""

from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sluicegate.clock import monotonic, wall_ns
from sluicegate.http.head import Head
from sluicegate.ids import request_ids

if TYPE_CHECKING:
    from sluicegate.errors import Header

JSON_HEADERS: "tuple[Header, ...]" = ((b"content-type", b"application/json"),)

SCOPE_KEY = "sluicegate.exchange"

_LONGEST_ECHO = 128
# Of a request whose headers cannot be read.
_UNREAD = Head()
# The end of a key is announced so long before it.
WARN_OF_END_MS = 14 * 86_400_000


class Exchange:
    """The ASGI side of one request. `send` stays the server's own: a wrapper would slow every batch."""

    __slots__ = (
        "began",
        "body_read",
        "client",
        "head",
        "headers",
        "key_until",
        "method",
        "receive",
        "request_id",
        "send",
        "started",
    )

    def __init__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        # Not the scope itself, which holds this exchange: a cycle would keep the connection's body, and
        # with it the connection, until the garbage collector comes by.
        self.method: str = scope["method"]
        peer = scope.get("client")
        # The address that is connected, or who is behind a trusted proxy; None for a Unix socket.
        self.client: str | None = peer[0] if peer else None
        # As they came; what every request needs of them is in `head`.
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.receive = receive
        self.send = send
        self.began = monotonic()
        # Always ours: a client's id could collide, or be chosen to.
        self.request_id = request_ids.next()
        self.head = _UNREAD
        # When the key of the request ends (milliseconds since 1970), once it is known.
        self.key_until: int | None = None
        self.body_read = False
        # A response has begun: from here on no other status is possible.
        self.started = False

    def owed_headers(self) -> "list[Header]":
        """The headers of every response: our request id, and the client's own where it sent one."""
        headers = [(b"x-request-id", self.request_id.encode())]
        echo = self.head.client_request_id
        if echo is not None and len(echo) <= _LONGEST_ECHO and echo.isascii() and echo.decode().isprintable():
            headers.append((b"x-client-request-id", echo))
        if self.key_until is not None:
            headers += _end_of_key(self.key_until)
        return headers

    async def answer(self, status: int, headers: "list[Header] | tuple[Header, ...]", body: bytes) -> None:
        """The whole response in two messages."""
        self.started = True
        send, owed = self.send, [*headers, *self.owed_headers()]
        await send({"type": "http.response.start", "status": status, "headers": owed})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _end_of_key(until: int) -> "list[Header]":
    """A warning in time, for the client to show or to log."""
    if until - wall_ns() // 1_000_000 > WARN_OF_END_MS:
        return []
    end = datetime.fromtimestamp(until // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return [(b"x-api-key-expires", end.encode())]


def exchange_of(scope: MutableMapping[str, Any]) -> Exchange:
    """The exchange that the envelope has put into the scope; the router passes nothing else on."""
    exchange: Exchange = scope[SCOPE_KEY]
    return exchange
