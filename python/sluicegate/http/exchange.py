"""One request and its answer: the ASGI connection, and the headers that every response owes."""

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from sluicegate.clock import monotonic
from sluicegate.http.head import Head
from sluicegate.http.relay import send_plain
from sluicegate.ids import request_ids

if TYPE_CHECKING:
    from sluicegate.errors import Header

JSON_HEADERS: "tuple[Header, ...]" = ((b"content-type", b"application/json"),)

SCOPE_KEY = "sluicegate.exchange"

_LONGEST_ECHO = 128


class Exchange:
    """The ASGI side of one request. `send` stays the server's own: a wrapper would slow every batch."""

    __slots__ = (
        "began",
        "body_read",
        "head",
        "headers",
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
        # As they came; what every request needs of them is in `head`.
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.receive = receive
        self.send = send
        self.began = monotonic()
        # Always ours: a client's id could collide, or be chosen to.
        self.request_id = request_ids.next()
        self.head = Head()
        self.body_read = False
        # A response has begun: from here on no other status is possible.
        self.started = False

    def owed_headers(self) -> "list[Header]":
        """The headers of every response: our request id, and the client's own where it sent one."""
        headers = [(b"x-request-id", self.request_id.encode())]
        echo = self.head.client_request_id
        if echo is not None and len(echo) <= _LONGEST_ECHO and echo.isascii() and echo.decode().isprintable():
            headers.append((b"x-client-request-id", echo))
        return headers

    async def answer(self, status: int, headers: "list[Header] | tuple[Header, ...]", body: bytes) -> None:
        """The whole response at once."""
        self.started = True
        await send_plain(self.send, status, [*headers, *self.owed_headers()], body)


def exchange_of(scope: MutableMapping[str, Any]) -> Exchange:
    """The exchange that the envelope has put into the scope; the router passes nothing else on."""
    exchange: Exchange = scope[SCOPE_KEY]
    return exchange
