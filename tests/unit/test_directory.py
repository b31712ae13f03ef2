"""The pipeline over a directory: several workspaces, views that are loaded, scopes, missing upstreams."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from fakes.asgi import Answer, request
from fakes.engine import FakeEngine, FakeRecipe, FakeReply, FakeRequest, FakeUpstream
from sluicegate.assistants.model import Assistant, AssistantSpec
from sluicegate.chat.count import PromptCounter
from sluicegate.chat.directory import View
from sluicegate.chat.keep import StoredChats
from sluicegate.chat.parts import Parts
from sluicegate.chat.pipeline import Pipeline
from sluicegate.chat.prepare import CHAT
from sluicegate.chat.remember import ChatMemory
from sluicegate.chat.scopes import Scopes
from sluicegate.chat.window import ContextWindows
from sluicegate.engine import Limits
from sluicegate.errors import GatewayError
from sluicegate.history.recall import History
from sluicegate.http.body import BodyReader
from sluicegate.http.envelope import Envelope
from sluicegate.http.exchange import Exchange, exchange_of
from sluicegate.http.relay import ClientWatches
from sluicegate.keys.model import Principal
from sluicegate.limits.admit import Limiter
from sluicegate.models.catalog import Catalog, Source
from sluicegate.models.routes import ModelsEndpoint
from sluicegate.settings import UpstreamConfig
from sluicegate.storage.shelf import Shelf
from sluicegate.telemetry.logs import Log
from sluicegate.upstreams.model import Upstream
from sluicegate.upstreams.select import RetryBudget
from sluicegate.usage.prices import Prices
from sluicegate.usage.settle import Ledger
from sluicegate.workspaces.model import WorkspaceSettings

pytestmark = pytest.mark.asyncio


def view(workspace: str, *assistants: tuple[str, str], settings: WorkspaceSettings | None = None) -> View:
    """A workspace whose one upstream is named as it is, with (name, model) assistants."""
    config = UpstreamConfig(name=workspace, base_url=f"http://{workspace}/v1", models=(f"{workspace}-model",))
    upstream = Upstream(config, FakeUpstream(config.base_url))  # type: ignore[arg-type]
    catalog = Catalog([Source(upstream, workspace, config.models, {})], None, 7)
    stored = [
        Assistant(
            id=f"asst_{name}",
            workspace=workspace,
            name=name,
            spec=AssistantSpec(model=(model,)),
            version=1,
            created_at=5000,
            updated_at=6000,
        )
        for name, model in assistants
    ]
    return View(workspace, settings or WorkspaceSettings(), stored, {workspace: upstream}, catalog)


class Stored:
    """A directory whose views are in a store until somebody asks for them."""

    def __init__(self, *views: View) -> None:
        self.stored = {view.id: view for view in views}
        self.loaded: dict[str, View] = {}
        self.loads: list[str] = []

    def view(self, principal: Principal) -> View | None:
        return self.loaded.get(principal.workspace)

    async def load(self, principal: Principal) -> View:
        self.loads.append(principal.workspace)
        found = self.loaded[principal.workspace] = self.stored[principal.workspace]
        return found

    async def default_model(self, view: View) -> str | None:
        return view.catalog.default


class Keys:
    """The principal that a test is."""

    def __init__(self) -> None:
        self.principal = Principal("k", "key_1", "acme")

    def known(self, _authorization: bytes | None, _others: tuple[bytes, ...] = ()) -> Principal:
        return self.principal

    async def find(self, _authorization: bytes | None, _others: tuple[bytes, ...] = ()) -> Principal:
        return self.principal


class Gateway:
    """Chat and the list of models over a stored directory."""

    def __init__(self, *views: View) -> None:
        self.directory = Stored(*views)
        self.keys: Any = Keys()
        self.engine: Any = FakeEngine(lambda _: FakeReply())
        log = Log(io.StringIO())
        scan: Any = FakeRequest
        recipe: Any = FakeRecipe
        windows = ContextWindows(PromptCounter(log), log)
        parts = Parts(
            chats=StoredChats(Shelf(configured=False)),
            memory=ChatMemory(History(Shelf(configured=False)), windows, recipe, ()),
            keys=self.keys,
            bodies=BodyReader(1 << 20, 10.0, 1),
            scan=scan,
            engine=self.engine,
            directory=self.directory,
            make_recipe=recipe,
            windows=windows,
            budget=RetryBudget(),
            scopes=Scopes({}, Prices({})),
            limiter=Limiter(Limits(None), lambda *_: None),
            ledger=Ledger(log),
            watches=ClientWatches(),
            keep_alive=15.0,
        )
        self.chat = Pipeline(parts, CHAT)
        self.models = ModelsEndpoint(self.keys, self.directory)
        self.app = Envelope(self.route, self.route, self.report)

    async def route(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith("/v1/models"):
            await self.models(scope, receive, send)
        else:
            await self.chat.respond(exchange_of(scope))

    def report(self, _exchange: Exchange, _error: GatewayError, where: str | None) -> None:
        assert where is None, where

    async def ask(self, model: str) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
        return await request(self.app, body=json.dumps(body).encode())

    async def listed(self) -> list[dict[str, Any]]:
        answer = await request(self.app, "/v1/models", b"", method="GET")
        return list(answer.json["data"])

    def become(self, **changes: Any) -> None:
        self.keys.principal = Principal("k", "key_1", **changes)


ACME = ("Shared name", "acme/acme-model")
CANARY = ("Canary of beta", "beta/beta-model")


async def test_a_view_is_loaded_once_and_then_at_hand() -> None:
    gateway = Gateway(view("acme", ACME))
    for _ in range(3):
        assert (await gateway.ask("Shared name")).status == 200
    assert gateway.directory.loads == ["acme"]


async def test_each_workspace_has_its_own_names() -> None:
    gateway = Gateway(view("acme", ACME), view("beta", CANARY, ("Shared name", "beta/beta-model")))
    gateway.become(workspace="acme")
    assert (await gateway.ask("Shared name")).headers["x-upstream-model"] == "acme-model"
    gateway.become(workspace="beta")
    assert (await gateway.ask("Shared name")).headers["x-upstream-model"] == "beta-model"
    assert [card["id"] for card in await gateway.listed()] == ["Canary of beta", "Shared name", "beta-model"]


@pytest.mark.parametrize(
    "name", ["Canary of beta", "CANARY OF BETA", "beta-model", "BETA-model", "beta/beta-model"]
)
async def test_another_workspaces_names_are_like_names_that_nobody_has(name: str) -> None:
    gateway = Gateway(view("acme", ACME), view("beta", CANARY))
    foreign = await gateway.ask(name)
    nobodys = await gateway.ask("n" * len(name))
    assert foreign.status == nobodys.status == 404
    assert foreign.error["message"] == nobodys.error["message"].replace("n" * len(name), name)
    assert gateway.directory.loads == ["acme"]
    card = await request(gateway.app, f"/v1/models/{name}", b"", method="GET")
    assert card.error == foreign.error


async def test_names_that_nobody_lists_are_remembered_but_not_many_of_them() -> None:
    config = UpstreamConfig(name="open", base_url="http://open/v1")
    upstream = Upstream(config, FakeUpstream(config.base_url))  # type: ignore[arg-type]
    catalog = Catalog([Source(upstream, "open", None, {})], None, 7)
    found = View("acme", WorkspaceSettings(), (), {"open": upstream}, catalog)
    caller = Principal("k", "key_1")
    assert found.plan("made-up", caller) is found.plan("made-up", caller)
    plans = [found.plan(f"made-up-{i}", caller) for i in range(2000)]
    assert [plan.name for plan in plans] == [f"made-up-{i}" for i in range(2000)]
    assert len(found._guesses) <= 256


async def test_an_assistant_keeps_the_time_at_which_it_was_made() -> None:
    gateway = Gateway(view("acme", ACME))
    first, model = await gateway.listed()
    assert (first["created"], first["owned_by"]) == (5, "acme")
    assert (model["created"], model["owned_by"]) == (7, "acme")


async def test_an_assistant_whose_upstream_is_gone_says_so() -> None:
    gateway = Gateway(view("acme", ("orphan", "removed/m")))
    answer = await gateway.ask("orphan")
    assert (answer.status, answer.error["code"]) == (503, "assistant_unavailable")
    assert answer.headers["x-should-retry"] == "false"
    assert "removed" not in answer.error["message"].replace("they are removed", "")
    # It is still listed: it exists, and its owner has to find it.
    assert "orphan" in [card["id"] for card in await gateway.listed()]


async def test_a_key_without_the_scope_may_not() -> None:
    gateway = Gateway(view("acme", ACME))
    gateway.become(workspace="acme", scopes=("models:read",))
    answer = await gateway.ask("Shared name")
    assert (answer.status, answer.error["code"]) == (403, "missing_scope")
    assert "`chat:write`" in answer.error["message"]
    assert len(await gateway.listed()) == 2
    gateway.become(workspace="acme", scopes=("chat:write",))
    refused = await request(gateway.app, "/v1/models", b"", method="GET")
    assert (refused.status, refused.error["code"]) == (403, "missing_scope")
    assert (await gateway.ask("Shared name")).status == 200


async def test_what_is_made_for_an_assistant_is_made_once() -> None:
    acme = view("acme", ACME)
    gateway = Gateway(acme)
    for _ in range(3):
        await gateway.ask("Shared name")
    plan = acme.plan("Shared name", gateway.keys.principal)
    assert plan is acme.plan("Shared name", gateway.keys.principal)
    assert list(plan.recipes) == [("chat", "acme", None)]
