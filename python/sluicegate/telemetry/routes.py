"""GET /metrics, for operators alone: figures of all workspaces are nothing for one of them."""

import asyncio
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from starlette.routing import Route

from sluicegate import errors
from sluicegate.http.exchange import Exchange, exchange_of
from sluicegate.http.head import Head, require_method
from sluicegate.settings import Secret

if TYPE_CHECKING:
    from sluicegate.records import Records

_HOW = "Send the gateway's `metrics_key`, or an admin key of the platform: Authorization: Bearer <key>."


class Rendering(Protocol):
    """What there is to show; `observability.Observability` is one."""

    @property
    def key(self) -> Secret | None: ...
    def look(self) -> None: ...
    def render(self, accept: str) -> tuple[bytes, str]: ...


class MetricsEndpoint:
    """Everything that all workers have counted."""

    def __init__(self, rendering: Rendering, records: "Callable[[], Records | None]") -> None:
        """`records`: None where there are no admin keys."""
        self._rendering = rendering
        self._records = records

    async def __call__(self, scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        exchange = exchange_of(scope)
        await self._admit(exchange)
        require_method(exchange.method, "GET, HEAD")
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        self._rendering.look()
        # Beside the loop: with many labels it takes milliseconds.
        text, media_type = await asyncio.to_thread(self._rendering.render, accept.decode("latin-1"))
        headers = [(b"content-type", media_type.encode()), (b"cache-control", b"no-store")]
        await exchange.answer(200, headers, text)

    async def _admit(self, exchange: Exchange) -> None:
        key = self._rendering.key
        if key is not None and hmac.compare_digest(_given(exchange.head), key.reveal().encode()):
            return
        records = self._records()
        if records is None:
            raise errors.invalid_api_key(f"Metrics are for operators. {_HOW}")
        from sluicegate.management.identify import identify  # noqa: PLC0415

        caller = await identify(records.keys, exchange)
        if not caller.is_platform:
            raise errors.missing_permission("platform:manage", caller.role)


def _given(head: Head) -> bytes:
    found = head.authorization or b""
    return found[7:] if found[:7].lower() == b"bearer " else b""


def routes(rendering: Rendering, records: "Callable[[], Records | None]") -> list[Route]:
    """The routes of this feature."""
    return [Route("/metrics", MetricsEndpoint(rendering, records))]
