"""POST /v1/chat/completions."""

from typing import Any

from starlette.routing import Route

from sluicegate.chat.pipeline import Parts, Pipeline
from sluicegate.chat.prepare import CHAT
from sluicegate.http.exchange import exchange_of


class Endpoint:
    """A pipeline as an ASGI application: no request or response objects between server and stages."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def __call__(self, scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        await self._pipeline.respond(exchange_of(scope))


def route(parts: Parts) -> Route:
    """The route of this operation. No `methods`: a wrong one is refused after the key was checked."""
    return Route("/v1/chat/completions", Endpoint(Pipeline(parts, CHAT)))
