"""The outermost ASGI application: request ids, and the only place where an exception becomes a response."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from sluicegate import errors
from sluicegate.errors import ClientGoneError, GatewayError
from sluicegate.http.body import discard
from sluicegate.http.exchange import JSON_HEADERS, SCOPE_KEY, Exchange
from sluicegate.http.head import read_head
from sluicegate.http.proxies import TrustedProxies

App = Callable[[Any, Any, Any], Awaitable[None]]
# What went wrong, for the log: the exchange, its error, and where an unexpected one was raised.
Report = Callable[[Exchange, GatewayError, str | None], None]

# Only these paths may be written with %-escapes: ids of models contain slashes, and SDKs escape them.
_ESCAPED = "/v1/models/"
# As a number: for `bytes` in `bytes` Python 3.11 makes an exception, and forgets it.
_PERCENT = ord("%")


class Envelope:
    """Wraps the data plane. Nothing is sent twice: after a response has begun, an error can only end it."""

    def __init__(self, app: App, unknown: App, report: Report, proxies: TrustedProxies | None = None) -> None:
        """`unknown` answers paths that the router must not see; `proxies`: None where none is trusted."""
        self._proxies = proxies
        self._app = app
        self._unknown = unknown
        self._report = report

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        scope[SCOPE_KEY] = exchange
        try:
            if self._proxies is not None:
                exchange.client = self._proxies.client(exchange.client, scope["headers"])
            exchange.head = read_head(scope["headers"])
            # The router sees the decoded path, where %2e or %2F can look like another endpoint.
            escaped = _PERCENT in scope.get("raw_path", b"") and not scope["path"].startswith(_ESCAPED)
            await (self._unknown if escaped else self._app)(scope, receive, send)
        except GatewayError as error:
            if not error.settled:
                self._report(exchange, error, None)
            await refuse(exchange, error)
        except ClientGoneError:
            # A body with broken framing looks the same, and its sender may still be there.
            if not exchange.body_read:
                exchange.body_read = True
                await refuse(exchange, errors.broken_body())
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as unexpected:  # noqa: BLE001 (PyO3's PanicException is a BaseException)
            fault = errors.internal()
            self._report(exchange, fault, where_of(unexpected))
            await refuse(exchange, fault)

    async def _other(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
            return
        await self._app(scope, receive, send)


async def refuse(exchange: Exchange, error: GatewayError) -> None:
    """Answer with an error, if nothing was answered yet."""
    if exchange.started:
        return
    await exchange.answer(error.status, [*JSON_HEADERS, *error.headers], error.to_body())
    # Not after a 408: that body was waited for long enough.
    if exchange.head.has_body and not exchange.body_read and error.status != errors.TIMED_OUT:
        await discard(exchange.receive)


def where_of(error: BaseException) -> str:
    """Kind and place of an exception, without its text: that could hold a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else "unknown place"
    return f"{type(error).__name__} at {place}"
