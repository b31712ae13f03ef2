"""GET /v1/models and /v1/models/{id}: the assistants and the models that a key may use."""

from collections.abc import Iterable
from typing import Any, Protocol

import orjson
from starlette.routing import Route

from sluicegate import errors
from sluicegate.http.exchange import JSON_HEADERS, exchange_of
from sluicegate.http.head import require_method
from sluicegate.keys.authenticate import Authenticator
from sluicegate.keys.model import Principal, Scope
from sluicegate.models.catalog import Card

_PREFIX = "/v1/models/"
_SCOPE: Scope = "models:read"


class Listing(Protocol):
    """One workspace's models; `chat.directory.View` is one."""

    def cards(self, principal: Principal) -> Iterable[Card]: ...
    def context_length(self, name: str, principal: Principal) -> int | None: ...


class Listings(Protocol):
    """Finds them; `chat.directory.Directory` is one."""

    def view(self, principal: Principal) -> Listing | None: ...
    async def load(self, principal: Principal) -> Listing: ...


class ModelsEndpoint:
    """The list, or with an id behind the path one entry of it. Ids may contain slashes."""

    def __init__(self, keys: Authenticator, listings: Listings) -> None:
        self._keys = keys
        self._listings = listings

    async def __call__(self, scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        exchange = exchange_of(scope)
        head = exchange.head
        principal = await self._keys.find(head.authorization, head.other_keys)
        exchange.key_until = principal.until
        if _SCOPE not in principal.scopes:
            raise errors.missing_scope(_SCOPE)
        require_method(scope["method"], "GET, HEAD")
        path: str = scope["path"]
        listing = self._listings.view(principal) or await self._listings.load(principal)
        cards = {card.id: card for card in listing.cards(principal)}
        if path.startswith(_PREFIX):
            card = cards.get(path[len(_PREFIX) :])
            if card is None:
                raise errors.unknown_model(path[len(_PREFIX) :], cards)
            body = orjson.dumps(_shown(card, listing, principal))
        else:
            data = [_shown(card, listing, principal) for card in cards.values()]
            body = orjson.dumps({"object": "list", "data": data})
        await exchange.answer(200, JSON_HEADERS, body)


def _shown(card: Card, listing: Listing, principal: Principal) -> dict[str, Any]:
    shown = {"id": card.id, "object": card.object, "created": card.created, "owned_by": card.owned_by}
    try:
        length = listing.context_length(card.id, principal)
    except errors.GatewayError:
        # An assistant that nobody can answer for is still there, and its own requests say so.
        length = None
    # The name that vLLM gave it, which is what clients look for.
    return shown if length is None else {**shown, "max_model_len": length}


def routes(keys: Authenticator, listings: Listings) -> list[Route]:
    """The routes of this feature."""
    endpoint = ModelsEndpoint(keys, listings)
    return [Route("/v1/models", endpoint), Route(_PREFIX + "{id:path}", endpoint)]
