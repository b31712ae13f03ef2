"""GET /v1/models and /v1/models/{id}."""

from typing import Any

import orjson
from starlette.routing import Route

from sluicegate.http.exchange import JSON_HEADERS, exchange_of
from sluicegate.http.head import require_method
from sluicegate.keys.authenticate import Authenticator
from sluicegate.models.catalog import Card, Catalog

_PREFIX = "/v1/models/"


class ModelsEndpoint:
    """The list, or with an id behind the path one entry of it. Ids may contain slashes."""

    def __init__(self, keys: Authenticator, catalog: Catalog[Any]) -> None:
        self._keys = keys
        self._catalog = catalog

    async def __call__(self, scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        exchange = exchange_of(scope)
        head = exchange.head
        self._keys.authenticate(head.authorization, head.other_keys)
        require_method(scope["method"], "GET, HEAD")
        path: str = scope["path"]
        if path.startswith(_PREFIX):
            body = orjson.dumps(_shown(self._catalog.card(path[len(_PREFIX) :])))
        else:
            body = orjson.dumps({"object": "list", "data": [_shown(c) for c in self._catalog.cards()]})
        await exchange.answer(200, JSON_HEADERS, body)


def _shown(card: Card) -> dict[str, Any]:
    return {"id": card.id, "object": card.object, "created": card.created, "owned_by": card.owned_by}


def routes(keys: Authenticator, catalog: Catalog[Any]) -> list[Route]:
    """The routes of this feature."""
    endpoint = ModelsEndpoint(keys, catalog)
    return [Route("/v1/models", endpoint), Route(_PREFIX + "{id:path}", endpoint)]
