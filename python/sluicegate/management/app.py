"""The management API as a Starlette application, to be mounted on /api. All its routes are listed here."""

from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.routing import Route

from sluicegate import errors
from sluicegate.archive import routes as archive
from sluicegate.assistants import routes as assistants
from sluicegate.audit import routes as audit
from sluicegate.engine import Engine
from sluicegate.http.body import BodyReader
from sluicegate.http.envelope import refuse
from sluicegate.http.exchange import JSON_HEADERS, exchange_of
from sluicegate.keys import routes as keys
from sluicegate.management.caller import OPERATIONS as CALLER
from sluicegate.management.dispatch import Dispatch
from sluicegate.management.openapi import document
from sluicegate.management.operation import Operation, Parts
from sluicegate.members import routes as members
from sluicegate.quality import routes as quality
from sluicegate.records import Records
from sluicegate.telemetry.logs import Log
from sluicegate.upstreams import routes as upstreams
from sluicegate.upstreams.ask import Open
from sluicegate.usage import routes as usage
from sluicegate.workspaces import routes as workspaces

OPERATIONS: tuple[Operation, ...] = (
    *CALLER,
    *workspaces.OPERATIONS,
    *keys.OPERATIONS,
    *upstreams.OPERATIONS,
    *assistants.OPERATIONS,
    *members.OPERATIONS,
    *audit.OPERATIONS,
    *usage.OPERATIONS,
    *quality.OPERATIONS,
    *archive.OPERATIONS,
)

# The longest system prompt, escaped, with room for tools.
MAX_BODY_BYTES = 1024 * 1024
_BODY_SECONDS = 30.0
_BODY_RATE = 64


def create_management(
    records: Records,
    engine: Engine,
    open_handle: Open,
    log: Log,
    *,
    allow_private_networks: tuple[str, ...] = (),
) -> Starlette:
    """The application for `Mount("/api", …)`, inside of the gateway's envelope.

    `allow_private_networks`: the operator's; tenants may point upstreams to these private ranges only.
    """
    parts = Parts(
        database=records.database,
        keys=records.keys,
        engine=engine,
        open_handle=open_handle,
        log=log,
        bodies=BodyReader(MAX_BODY_BYTES, _BODY_SECONDS, _BODY_RATE),
        logbook=records.logbook,
        allow_private_networks=allow_private_networks,
    )
    return Starlette(routes=routes(parts))


def routes(parts: Parts) -> list[Route]:
    """One route for each path, relative to the mount; all others are unknown."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    found = [Route(f"/v1{path}", Dispatch(parts, methods)) for path, methods in by_path.items()]
    found.append(Route("/v1/openapi.json", _Document()))
    return [*found, Route("/{rest:path}", Dispatch(parts, {})), Route("/", Dispatch(parts, {}))]


class _Document:
    """GET /api/v1/openapi.json: for everybody, since it holds nothing of any workspace."""

    def __init__(self) -> None:
        self._body = orjson.dumps(document(OPERATIONS))

    async def __call__(self, scope: Any, _receive: Any, _send: Any) -> None:
        exchange = exchange_of(scope)
        if exchange.method != "GET":
            # Not raised: Starlette would answer it in text.
            await refuse(exchange, errors.method_not_allowed(exchange.method, "GET"))
            return
        await exchange.answer(200, [*JSON_HEADERS, (b"cache-control", b"no-store")], self._body)
