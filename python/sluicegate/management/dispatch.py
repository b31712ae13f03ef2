"""One call of the management API, in order: who, may they, is it well formed, then the operation itself."""

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from sluicegate import errors
from sluicegate.errors import ClientGoneError, GatewayError, Header
from sluicegate.http import json_body
from sluicegate.http.envelope import refuse, where_of
from sluicegate.http.exchange import JSON_HEADERS, Exchange, exchange_of
from sluicegate.http.guard import Caller
from sluicegate.http.head import require_json
from sluicegate.http.pieces import send_pieces
from sluicegate.management.faults import public
from sluicegate.management.identify import identify
from sluicegate.management.operation import Answer, Call, Operation, Parts
from sluicegate.storage import idempotency
from sluicegate.storage.errors import NotFoundError, StorageError
from sluicegate.storage.scope import require_workspace
from sluicegate.storage.transaction import Actor

PREFIX = "/api/v1"
_MOST_PARAMETERS = 20
# Of a version: it fits the smallest column.
_ETAG = re.compile(rb'"([0-9]{1,9})"')
_NO_STORE: Header = (b"cache-control", b"no-store")
_REPLAYED: Header = (b"idempotent-replayed", b"true")
_FIRST_5XX = 500

Scope = dict[str, Any]


class _Sent(Struct, frozen=True):
    """An answer as bytes."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = ()
    # What follows the body.
    stream: AsyncIterator[bytes] | None = None


class Dispatch:
    """The operations of one path, by method: a raw ASGI application. Without any, every path is unknown."""

    def __init__(self, parts: Parts, operations: Mapping[str, Operation]) -> None:
        self._parts = parts
        self._operations = operations

    async def __call__(self, scope: Scope, _receive: Any, _send: Any) -> None:
        exchange = exchange_of(scope)
        try:
            sent = await self._run(exchange, scope)
            if sent.stream is not None:
                await send_pieces(exchange, [_NO_STORE, *sent.headers], sent.stream)
                return
            kind = JSON_HEADERS if sent.body else ()
            await exchange.answer(sent.status, [*kind, _NO_STORE, *sent.headers], sent.body)
        except GatewayError as error:
            await self._refuse(exchange, error)
        except StorageError as error:
            found = public(error)
            await self._refuse(exchange, found, where_of(error) if found.status == _FIRST_5XX else None)
        except ClientGoneError:
            if not exchange.body_read:
                exchange.body_read = True
                await self._refuse(exchange, errors.broken_body())
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as unexpected:  # noqa: BLE001 (the application around it would answer in text)
            await self._refuse(exchange, errors.internal(), where_of(unexpected))

    async def _refuse(self, exchange: Exchange, error: GatewayError, where: str | None = None) -> None:
        """The error as the answer, and its line in the log."""
        log, fields = self._parts.log, {"request_id": exchange.request_id}
        if where is not None:
            log.error("internal_error", where=where, status=error.status, code=error.code, **fields)
        elif error.status >= _FIRST_5XX or log.access:
            log.info("refused", status=error.status, code=error.code, **fields)
        error.headers = (*error.headers, _NO_STORE)
        await refuse(exchange, error)

    async def _run(self, exchange: Exchange, scope: Scope) -> _Sent:
        operation = self._operations.get(exchange.method)
        caller = None
        if operation is None or operation.permission is not None:
            caller = await identify(self._parts.keys, exchange)
        if operation is None:
            # Who has no key learns neither paths nor methods.
            if self._operations:
                raise errors.method_not_allowed(exchange.method, ", ".join(self._operations))
            raise errors.unknown_path()
        path: dict[str, str] = scope.get("path_params", {})
        if caller is not None:
            _admit(caller, operation, path)
        local = _is_local(scope.get("client"), scope.get("server"))
        call = Call(self._parts, caller, path, is_local=local, request_id=exchange.request_id)
        call.template = operation.id
        call.query = _query(scope.get("query_string", b""), operation.query)
        headers = _single_headers(scope["headers"])
        if operation.takes_if_match:
            call.expected = _version(headers.get(b"if-match"))
        raw = b""
        if operation.body is not None:
            require_json(exchange.head)
            raw = await self._parts.bodies.read(exchange.receive, exchange.head.content_length)
            exchange.body_read = True
            call.body = json_body.read(raw, operation.body)
        key = headers.get(b"idempotency-key") if operation.creates else None
        return await self._work(operation, call, key, raw)

    async def _work(self, operation: Operation, call: Call, key: bytes | None, raw: bytes) -> _Sent:
        database = self._parts.database
        if operation.mode == "open":
            return _encoded(operation, await operation.run(call))
        if operation.mode == "read":
            async with database.read() as view:
                if operation.is_scoped:
                    await require_workspace(view, call.workspace)
                answer = await operation.run(call.opened(view))
            return _encoded(operation, answer)
        name = f"key:{call.caller.id}"
        async with database.change(Actor(name, call.request_id)) as change:
            if operation.is_scoped:
                await require_workspace(change, call.workspace)
            if key is None:
                return _encoded(operation, await operation.run(call.opened(change)))
            home, text = call.caller.workspace, key.decode("latin-1")
            # The ids of the path belong to the request as well as its body.
            request = b"\n".join((operation.id.encode(), repr(sorted(call.path.items())).encode(), raw))
            before = await idempotency.replay(change, home, text, request, actor=name)
            if before is not None:
                return _Sent(before.status, before.body, (_REPLAYED,))
            sent = _encoded(operation, await operation.run(call.opened(change)))
            kept = idempotency.Replay(sent.status, sent.body)
            await idempotency.keep(change, home, text, request, kept)
            return sent


def _admit(caller: Caller, operation: Operation, path: Mapping[str, str]) -> None:
    """Deny by default. A workspace that the caller does not reach is one that is not there."""
    if operation.is_scoped and not caller.reaches(path["workspace"]):
        raise NotFoundError("workspace")
    if operation.permission is None:
        raise RuntimeError("a public operation has no caller")
    caller.require(operation.permission)


def _is_local(client: Any, server: Any) -> bool:
    """Whether the peer is this machine: a loopback address, or the very address that it has called."""
    if not client:
        # A Unix socket has none.
        return True
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback) or (server is not None and client[0] == server[0])


def _encoded(operation: Operation, answer: Answer) -> _Sent:
    headers: list[Header] = []
    if operation.versioned and answer.version is not None:
        headers.append((b"etag", b'"%d"' % answer.version))
    if answer.location is not None:
        headers.append((b"location", errors.header_value(PREFIX + answer.location)))
    if answer.stream is not None:
        return _Sent(operation.status, b"", ((b"content-type", answer.media.encode()),), answer.stream)
    body = b"" if operation.answer is None else msgspec.json.encode(answer.value)
    return _Sent(operation.status, body, tuple(headers))


def _query(raw: bytes, kind: type[Struct]) -> Struct:
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS
        )
    except ValueError:
        raise errors.bad_request("invalid_value", "The query of the URL cannot be read.") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise errors.bad_request("duplicate_parameter", "A parameter of the URL stands there twice.")
    return json_body.convert(found, kind, strict=False)


def _single_headers(headers: "list[tuple[bytes, bytes]]") -> dict[bytes, bytes]:
    """If-Match and Idempotency-Key. Raises a 400 where one stands there twice."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in (b"if-match", b"idempotency-key"):
            if name in found:
                raise errors.bad_request(
                    "duplicate_header", f"The request has two {name.decode().title()} headers. Send one."
                )
            found[name] = value
    return found


def _version(given: bytes | None) -> int | None:
    """The version that the client has read; None: any."""
    given = None if given is None else given.strip(b" \t")
    if given in (None, b"*"):
        return None
    match = _ETAG.fullmatch(given or b"")
    if match is None:
        raise errors.bad_request(
            "invalid_value", 'If-Match: expected an ETag of this API, such as "3", or *.', "If-Match"
        )
    return int(match[1])
