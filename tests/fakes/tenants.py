"""Workspaces in a database, and the whole application over a scripted core in front of them."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.asgi import JSON, Answer, request
from fakes.engine import Asked, FakeEngine, FakeRecipe, FakeReply, FakeRequest, FakeUpstream
from sluicegate import app as application
from sluicegate.assistants import store as assistants
from sluicegate.assistants.model import AssistantDraft, AssistantSpec
from sluicegate.keys import store as keys
from sluicegate.keys.model import KeyDraft
from sluicegate.settings import Secret, Settings
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location
from sluicegate.storage.transaction import SYSTEM
from sluicegate.telemetry.logs import Log
from sluicegate.upstreams import connect
from sluicegate.upstreams import store as upstreams
from sluicegate.upstreams.record import Credentials, UpstreamDraft
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft, WorkspaceSettings


def listing(*cards: Any) -> FakeReply:
    """A list of models: ids, or whole cards."""
    data = [{"id": card} if isinstance(card, str) else card for card in cards]
    return FakeReply(body=json.dumps({"object": "list", "data": data}).encode())


def serving(asked: Asked) -> FakeReply:
    """Each server lists one model, named after its host."""
    host = asked.upstream.base_url.split("/")[2]
    return listing(f"{host}-model") if asked.operation == "models" else FakeReply()


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 (it asks the gateway)
            await asyncio.sleep(0.02)


class Tenants:
    """Makes what an operator would make."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def workspace(self, name: str, **settings: Any) -> None:
        async with self.database.change(SYSTEM) as change:
            draft = WorkspaceDraft(name=name, settings=WorkspaceSettings(**settings))
            await workspaces.create(change, name, draft)

    async def key(self, workspace: str, name: str = "app", **draft: Any) -> tuple[str, str]:
        """Its id and its text."""
        async with self.database.change(SYSTEM) as change:
            made, text = await keys.create(change, workspace, KeyDraft(name=name, **draft))
        return made.id, text

    async def upstream(self, workspace: str, name: str, base_url: str, **draft: Any) -> str:
        secret = Credentials(api_key=Secret(f"sk-of-{workspace}-{name}-0123456789"))
        async with self.database.change(SYSTEM) as change:
            made = await upstreams.create(
                change, workspace, UpstreamDraft(name=name, base_url=base_url, **draft), secret
            )
        return made.id

    async def assistant(self, workspace: str, name: str, *models: str, **spec: Any) -> str:
        async with self.database.change(SYSTEM) as change:
            draft = AssistantDraft(name=name, spec=AssistantSpec(model=models, **spec))
            return (await assistants.create(change, workspace, draft)).id

    async def revoke(self, workspace: str, key: str) -> None:
        async with self.database.change(SYSTEM) as change:
            await keys.revoke(change, workspace, key)


# Starts a gateway: a script, settings.
Make = Callable[..., AbstractAsyncContextManager["TenantGateway"]]


class TenantGateway:
    """An application with a database: requests in, and what reached the core."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        location: Location,
        script: Callable[[Asked], Any],
        settings: Settings | None = None,
    ) -> None:
        self.engine = FakeEngine(script)
        self.output = io.StringIO()
        core = SimpleNamespace(
            Engine=lambda **_: self.engine, Upstream=FakeUpstream, Recipe=FakeRecipe, scan=FakeRequest
        )
        monkeypatch.setattr(application, "core", core)
        monkeypatch.setattr(connect, "core", core)
        monkeypatch.setattr(application, "Log", self._make_log)
        self.gateway = application.Gateway(settings or Settings(), 7, location)

    def _make_log(self, *, access: bool) -> Log:
        self.log = Log(self.output, access=access)
        return self.log

    @asynccontextmanager
    async def running(self) -> AsyncIterator[TenantGateway]:
        """From the start to the end of its lifespan."""
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        outbox: asyncio.Queue[Any] = asyncio.Queue()
        scope = {"type": "lifespan", "state": {}}
        task = asyncio.create_task(self.gateway.asgi(scope, inbox.get, outbox.put))
        await inbox.put({"type": "lifespan.startup"})
        assert (await asyncio.wait_for(outbox.get(), 20))["type"] == "lifespan.startup.complete"
        try:
            yield self
        finally:
            await inbox.put({"type": "lifespan.shutdown"})
            await asyncio.wait_for(task, 20)

    async def ask(self, key: str, model: str | None, *, header: str = "authorization", **body: Any) -> Answer:
        """One chat."""
        values = {"messages": [{"role": "user", "content": "x"}], **body}
        if model is not None:
            values["model"] = model
        return await request(self.gateway.asgi, body=json.dumps(values).encode(), headers=_head(key, header))

    async def get(self, key: str, path: str = "/v1/models", *, header: str = "authorization") -> Answer:
        return await request(self.gateway.asgi, path, b"", method="GET", headers=_head(key, header))

    async def names(self, key: str) -> list[str]:
        """What GET /v1/models lists."""
        return [card["id"] for card in (await self.get(key)).json["data"]]

    async def lists(self, key: str, name: str) -> bool:
        """Whether GET /v1/models has a name."""
        return name in await self.names(key)

    @property
    def chats(self) -> list[Asked]:
        """The calls to upstreams but those that ask for models."""
        return [asked for asked in self.engine.asked if asked.operation != "models"]

    def lines(self) -> list[dict[str, Any]]:
        """Everything logged so far."""
        self.log.close()
        return [json.loads(line) for line in self.output.getvalue().splitlines()]


def _head(key: str, header: str) -> list[tuple[bytes, bytes]]:
    value = f"Bearer {key}" if header == "authorization" else key
    return [(header.encode(), value.encode()), JSON]
