"""POST /v1/chat/completions."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.routing import Route

from sluicegate.chat.parts import Parts
from sluicegate.chat.pipeline import Pipeline
from sluicegate.chat.prepare import CHAT
from sluicegate.http.exchange import exchange_of

App = Callable[[Any, Any, Any], Awaitable[None]]


class Endpoint:
    """A pipeline as an ASGI application: no request or response objects between server and stages."""

    def __init__(self, pipeline: Pipeline, others: App | None = None) -> None:
        """`others` answers all methods but POST."""
        self._pipeline = pipeline
        self._others = others

    def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
        if self._others is not None and scope["method"] != "POST":
            return self._others(scope, receive, send)
        return self._pipeline.respond(exchange_of(scope))


def route(parts: Parts, stored: App) -> Route:
    """The route of this operation. No `methods`: a wrong one is refused after the key was checked.

    `stored` answers for the chats that are stored.
    """
    return Route("/v1/chat/completions", Endpoint(Pipeline(parts, CHAT), stored))
