"""The management API as it is mounted, called in process."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.routing import Mount, Router
from world import World

from fakes.asgi import Answer, Client
from sluicegate import errors
from sluicegate.engine import Engine
from sluicegate.http.envelope import Envelope
from sluicegate.management.app import create_management
from sluicegate.records import Records
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location
from sluicegate.telemetry.logs import Log
from sluicegate.upstreams.connect import open_handle

# The address that the gateway was called at.
SERVER = "192.0.2.80"
JSON = (b"content-type", b"application/json")


async def unknown(_scope: MutableMapping[str, Any], _receive: Any, _send: Any) -> None:
    raise errors.unknown_path()


def mounted(records: Records, engine: Engine, log: Log, **options: Any) -> Envelope:
    """An application with nothing but the management API."""
    management = create_management(records, engine, open_handle, log, **options)
    return Envelope(Router([Mount("/api", management)], default=unknown), unknown, lambda *_: None)


class Rig:
    """An open database, the API over it, and everything that it logged."""

    def __init__(self, database: Database, world: World, **options: Any) -> None:
        self.database = database
        self.world = world
        self.engine = Engine()
        self.output = io.StringIO()
        self.log = Log(self.output, access=True)
        self.records = Records(database)
        self.app = mounted(self.records, self.engine, self.log, **options)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        query: str = "",
        headers: dict[str, str] | None = None,
        client: str = "127.0.0.1",
        patience: float = 20,
    ) -> Answer:
        """One request below /api/v1; `key` is a name of the world's, or a text."""
        sent = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        if key is not None:
            text = self.world.keys.get(key, key)
            sent.append((b"authorization", b"Bearer " + text.encode()))
        raw = b""
        if body is not None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            if not any(name == b"content-type" for name, _ in sent):
                sent.append(JSON)
            sent.append((b"content-length", str(len(raw)).encode()))
        answer = await request(
            self.app, method, f"/api/v1{path}", raw, sent, query=query, client=client, patience=patience
        )
        check_shape(answer)
        return answer


async def request(
    app: Any,
    method: str,
    path: str,
    body: bytes,
    headers: list[tuple[bytes, bytes]],
    *,
    query: str = "",
    client: str = "127.0.0.1",
    patience: float = 5,
) -> Answer:
    answer = Answer()
    connection = Client([body])

    async def send(message: dict[str, Any]) -> None:
        assert message["type"] == ("http.response.body" if answer.messages else "http.response.start")
        answer.messages.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "http_version": "1.1",
        "headers": headers,
        "root_path": "",
        "client": (client, 40000),
        "server": (SERVER, 8080),
        "state": {},
    }
    await asyncio.wait_for(app(scope, connection.receive, send), patience)
    return answer


def check_shape(answer: Answer) -> None:
    """What every answer of the API has."""
    headers = answer.headers
    assert headers["x-request-id"]
    assert headers.get("cache-control") == "no-store" or answer.status == 405
    if answer.status >= 400:
        assert answer.error["code"]
        assert answer.error["message"]


@asynccontextmanager
async def opened(location: Location, world: World, **options: Any) -> AsyncIterator[Rig]:
    """The API over the database at `location`."""
    database = await Database.open(location)
    rig = Rig(database, world, **options)
    try:
        yield rig
    finally:
        await rig.engine.close()
        rig.log.close()
        rig.records.logbook.close()
        await database.close()
