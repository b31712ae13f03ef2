"""Requests for what is kept: who asks, how, for which path, with which query and body."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl

import orjson

from sluicegate import errors
from sluicegate.http.body import BodyReader
from sluicegate.http.exchange import JSON_HEADERS, Exchange, exchange_of
from sluicegate.http.head import require_json, require_method

Json = dict[str, Any]

SMALLEST, LARGEST, USUAL = 1, 100, 20
_LONGEST_KEY, _LONGEST_VALUE, _MOST_PAIRS = 64, 512, 16


class Caller(Protocol):
    """Who asks; `keys.model.Principal` is one."""

    @property
    def id(self) -> str: ...
    @property
    def workspace(self) -> str: ...
    @property
    def scopes(self) -> tuple[str, ...]: ...
    @property
    def until(self) -> int | None: ...


class Callers(Protocol):
    """Finds them; `keys.authenticate.Authenticator` is one."""

    async def find(self, authorization: bytes | None, others: tuple[bytes, ...] = ()) -> Caller: ...


class Owner(NamedTuple):
    """Whose things: those of one key in one workspace. An id alone opens nothing."""

    workspace: str
    key: str


class Window(NamedTuple):
    """Which part of a list is wanted."""

    after: str | None = None
    limit: int = USUAL
    newest_first: bool = True


class Visit(NamedTuple):
    """One request that was let in."""

    exchange: Exchange
    owner: Owner
    # The parts of the path behind the door's own.
    path: tuple[str, ...]
    query: Mapping[str, str]

    @property
    def method(self) -> str:
        return self.exchange.method

    def require(self, allowed: str) -> None:
        """Raises 405."""
        require_method(self.method, allowed)

    async def answer(self, value: Any) -> None:
        """A 200 with JSON; `bytes` are JSON already."""
        body = value if isinstance(value, bytes) else orjson.dumps(value)
        await self.exchange.answer(200, JSON_HEADERS, body)

    def window(self) -> Window:
        """`after`, `limit` and `order`. Raises 400."""
        limit = self.query.get("limit", str(USUAL))
        if not (limit.isascii() and limit.isdigit() and SMALLEST <= int(limit[:9]) <= LARGEST):
            raise errors.bad_request(
                "invalid_value", f"'limit' must be a number from {SMALLEST} to {LARGEST}.", "limit"
            )
        order = self.query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise errors.bad_request("invalid_value", "'order' must be 'asc' or 'desc'.", "order")
        return Window(self.query.get("after"), int(limit), order == "desc")


class Door:
    """Lets callers in who have a scope."""

    def __init__(self, callers: Callers, bodies: BodyReader, scope: str, prefix: str) -> None:
        self._callers = callers
        self._bodies = bodies
        self._scope = scope
        self._prefix = prefix

    async def enter(self, scope: Mapping[str, Any]) -> Visit:
        """Check the key. Raises 401 and 403, and 404 for a path with an empty part."""
        exchange = exchange_of(dict(scope))
        caller = await self._callers.find(exchange.head.authorization, exchange.head.other_keys)
        exchange.key_until = caller.until
        if self._scope not in caller.scopes:
            raise errors.missing_scope(self._scope)
        rest = str(scope["path"]).removeprefix(self._prefix)
        parts = tuple(rest.removeprefix("/").split("/")) if rest else ()
        if "" in parts:
            raise errors.unknown_path()
        query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))
        return Visit(exchange, Owner(caller.workspace, caller.id), parts, query)

    async def body(self, visit: Visit, *, may_be_empty: bool = False) -> Json:
        """The JSON object that was sent. Raises 400, 413 and 415."""
        exchange = visit.exchange
        if may_be_empty and not exchange.head.has_body:
            return {}
        require_json(exchange.head)
        raw = await self._bodies.read(exchange.receive, exchange.head.content_length)
        exchange.body_read = True
        return parsed(raw)


def parsed(raw: bytes) -> Json:
    """A JSON object. Raises 400."""
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise errors.bad_request("invalid_json", f"The body is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise errors.bad_request("invalid_type", "The body must be a JSON object: { … }.")
    return found


def metadata_of(value: Any, param: str = "metadata") -> dict[str, str]:
    """OpenAI's metadata: at most 16 pairs of short texts. Raises 400."""
    if value is None:
        return {}
    good = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    if not good:
        raise errors.bad_request("invalid_type", f"'{param}' must be an object of texts.", param)
    if len(value) > _MOST_PAIRS or any(
        len(key) > _LONGEST_KEY or len(text) > _LONGEST_VALUE for key, text in value.items()
    ):
        raise errors.bad_request(
            "invalid_value",
            f"'{param}' has more than {_MOST_PAIRS} pairs, a key of more than {_LONGEST_KEY} characters, or "
            f"a value of more than {_LONGEST_VALUE}. Send less.",
            param,
        )
    return dict(value)


def listed(items: list[Json], *, has_more: bool) -> Json:
    """OpenAI's page of a list."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more}
