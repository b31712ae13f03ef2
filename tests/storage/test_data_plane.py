"""The data plane over a database: who may what, what each workspace sees, and what changes at once."""

from __future__ import annotations

import gc
import json
from typing import Any

import msgspec
import pytest

from fakes.asgi import JSON, request
from fakes.tenants import Make, TenantGateway, Tenants, until
from sluicegate.assistants import store as assistants
from sluicegate.assistants.model import AssistantDraft, AssistantSpec
from sluicegate.ids import PLATFORM
from sluicegate.keys import store as keys
from sluicegate.keys.model import KeyDraft, mint
from sluicegate.keys.secret import read
from sluicegate.settings import KeyConfig, Secret, Settings, UpstreamConfig
from sluicegate.storage import freshness as freshness_module
from sluicegate.storage.database import Database
from sluicegate.storage.errors import UnavailableError
from sluicegate.storage.transaction import SYSTEM
from sluicegate.upstreams import store as upstreams
from sluicegate.upstreams.record import Credentials
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft, WorkspaceSettings

pytestmark = pytest.mark.asyncio


async def test_an_assistant_answers_and_the_lists_hold_what_the_workspace_has(make: Make, acme: str) -> None:
    async with make() as gateway:
        answer = await gateway.ask(acme, "Helper")
        assert answer.status == 200
        (asked,) = gateway.chats
        assert (asked.upstream.base_url, asked.upstream.options["trusted"]) == ("http://acme-host/v1", False)
        assert asked.upstream.options["api_key"] == "sk-of-acme-own-0123456789"
        body = json.loads(asked.body or b"")
        assert (body["model"], body["messages"][0]["content"]) == ("m", "Be short.")
        assert await gateway.names(acme) == ["Helper", "m", "n"]
        wrong = await gateway.ask(acme, "HELPER")
        assert wrong.status == 404
        assert "`Helper` does" in wrong.error["message"]
        assert (await gateway.ask(acme, None)).status == 200


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
async def test_every_header_that_carries_a_key(make: Make, acme: str, header: str) -> None:
    async with make() as gateway:
        assert (await gateway.ask(acme, "Helper", header=header)).status == 200
        both = [(b"authorization", f"Bearer {acme}".encode()), (b"api-key", mint().encode()), JSON]
        answer = await request(gateway.gateway.asgi, headers=both)
        assert (answer.status, answer.error["code"]) == (400, "conflicting_credentials")


async def test_keys_that_open_nothing(make: Make, tenants: Tenants, acme: str) -> None:
    revoked, revoked_text = await tenants.key("acme", "revoked")
    await tenants.revoke("acme", revoked)
    _, expired = await tenants.key("acme", "expired", expires_at=1000)
    _, reader = await tenants.key("acme", "reader", scopes=("models:read",))
    _, narrow = await tenants.key("acme", "narrow", models=("own/n", "n"))
    await tenants.workspace("gone")
    _, orphan = await tenants.key("gone")
    async with tenants.database.change(SYSTEM) as change:
        await workspaces.delete(change, "gone")
        _, admin = await keys.create(
            change, "acme", KeyDraft(name="admin"), kind="admin", role="workspace_admin"
        )
    known = read(acme)
    assert known is not None
    forged = mint("client", known.kid)
    table = [
        (revoked_text, 401, "api_key_revoked"),
        (expired, 401, "api_key_expired"),
        (orphan, 401, "workspace_deleted"),
        (mint(), 401, "invalid_api_key"),
        (forged, 401, "invalid_api_key"),
        (f"{acme[:-1]}", 401, "invalid_api_key"),
        ("sk-somebody-elses", 401, "invalid_api_key"),
        (admin, 403, "wrong_key_kind"),
        (mint("admin"), 401, "invalid_api_key"),
        (reader, 403, "missing_scope"),
        (narrow, 403, "model_not_allowed"),
    ]
    async with make() as gateway:
        # Twice: from the database, and from memory.
        for text, status, code in [*table, *table]:
            answer = await gateway.ask(text, "Helper")
            assert (answer.status, answer.error["code"]) == (status, code), code
            assert text not in answer.body.decode()
        assert gateway.chats == []
        assert await gateway.names(narrow) == ["n"]
        assert (await gateway.ask(narrow, "n")).status == 200


async def test_a_change_holds_with_the_next_request(make: Make, tenants: Tenants, acme: str) -> None:
    key, text = await tenants.key("acme", "second")
    async with make() as gateway:
        assert (await gateway.ask(text, "Helper")).status == 200
        await tenants.revoke("acme", key)
        assert (await gateway.ask(text, "Helper")).error["code"] == "api_key_revoked"
        assert (await gateway.ask(acme, "Helper")).status == 200
        await tenants.assistant("acme", "Late", "own/n")
        assert (await gateway.ask(acme, "Late")).status == 200
        async with tenants.database.change(SYSTEM) as change:
            found = await assistants.find(change, "acme", "Late")
            assert found is not None
            spec = AssistantSpec(model=("own/n",), temperature=0.5)
            await assistants.replace(change, "acme", found.id, AssistantDraft(name="Renamed", spec=spec))
        assert (await gateway.ask(acme, "Late")).status == 404
        assert (await gateway.ask(acme, "Renamed")).status == 200
        assert json.loads(gateway.chats[-1].body or b"")["temperature"] == 0.5
        rotated = await tenants.key("acme", "rotated")
        async with tenants.database.change(SYSTEM) as change:
            _, fresh = await keys.rotate(change, "acme", rotated[0], grace_ms=60_000)
        assert [(await gateway.ask(each, "Helper")).status for each in (rotated[1], fresh)] == [200, 200]


CANARY = "canary-7f3a"


async def test_two_workspaces_see_nothing_of_each_other(make: Make, tenants: Tenants, acme: str) -> None:
    """Everything of the other one has the canary in its name; whole responses are searched for it."""
    await tenants.workspace(CANARY)
    await tenants.upstream(CANARY, f"{CANARY}-up", f"http://{CANARY}-host/v1")
    await tenants.assistant(CANARY, f"{CANARY} Assistant", f"{CANARY}-up/x", system_prompt=CANARY)
    await tenants.assistant(CANARY, "Shared name", f"{CANARY}-up/x", description=CANARY)
    await tenants.assistant("acme", "Shared name", "own/m")
    _, theirs = await tenants.key(CANARY)
    async with make() as gateway:
        await until(lambda: gateway.lists(theirs, f"{CANARY}-host-model"))
        names = [
            f"{CANARY} Assistant",
            f"{CANARY} assistant",
            f"{CANARY}-host-model",
            f"{CANARY}-up/x",
            f"{CANARY}-up/{CANARY}-host-model",
        ]
        for name in names:
            nobodys = "q" * len(name)
            for foreign, missing in [
                (await gateway.ask(acme, name), await gateway.ask(acme, nobodys)),
                (
                    await gateway.get(acme, f"/v1/models/{name}"),
                    await gateway.get(acme, f"/v1/models/{nobodys}"),
                ),
            ]:
                assert foreign.status == missing.status == 404
                assert foreign.body == missing.body.replace(nobodys.encode(), name.encode())
        answers = [
            await gateway.get(acme),
            await gateway.ask(acme, "Shared name"),
            await gateway.ask(acme, "m"),
        ]
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert CANARY not in repr([answer.messages for answer in answers])
        assert CANARY not in repr([(a.upstream.base_url, a.upstream.options, a.body) for a in gateway.chats])
        assert (await gateway.ask(theirs, f"{CANARY} Assistant")).status == 200
        assert "acme" not in gateway.chats[-1].upstream.base_url


async def test_the_operators_upstreams_go_to_whom_they_are_offered(
    make: Make, tenants: Tenants, acme: str
) -> None:
    await tenants.workspace("other")
    _, other = await tenants.key("other")
    await tenants.upstream(PLATFORM, "all", "http://all-host/v1", models=("for-all",), offered_to="all")
    await tenants.upstream(
        PLATFORM, "some", "http://some-host/v1", models=("for-acme",), offered_to=("acme",)
    )
    await tenants.upstream(PLATFORM, "none", "http://none-host/v1", models=("for-nobody",))
    await tenants.upstream(PLATFORM, "own", "http://hidden/v1", models=("hidden",), offered_to="all")
    async with make() as gateway:
        assert await gateway.names(acme) == ["Helper", "m", "n", "for-all", "for-acme"]
        assert await gateway.names(other) == ["for-all", "hidden"]
        assert (await gateway.ask(other, "for-acme")).status == 404
        assert (await gateway.ask(acme, "for-acme")).status == 200
        assert gateway.chats[-1].upstream.options["trusted"] is True
        assert (
            (await gateway.ask(other, "for-all")).status == (await gateway.ask(acme, "for-all")).status == 200
        )
        # One server is one pool, whoever uses it.
        assert gateway.chats[-1].upstream is gateway.chats[-2].upstream


async def test_connections_stay_while_what_decides_about_them_stays(
    make: Make, tenants: Tenants, acme: str
) -> None:
    async with make() as gateway:

        async def used() -> Any:
            await gateway.ask(acme, "m")
            return gateway.chats[-1].upstream

        async def change(credentials: Credentials | None = None, **fields: Any) -> None:
            async with tenants.database.change(SYSTEM) as open_change:
                found = await upstreams.find(open_change, "acme", "own")
                assert found is not None
                draft = msgspec.structs.replace(upstreams.draft_of(found), **fields)
                await upstreams.replace(open_change, "acme", found.id, draft, credentials=credentials)

        first = await used()
        await tenants.assistant("acme", "another", "own/m")
        assert await used() is first
        await change(weight=7, models=("m", "n", "o"))
        assert await used() is first
        assert (await gateway.ask(acme, "o")).status == 200
        await change(credentials=Credentials(api_key=Secret("sk-new-0123456789abcdef")))
        second = await used()
        assert second is not first
        assert second.options["api_key"] == "sk-new-0123456789abcdef"
        del first, second
        gateway.engine.asked.clear()
        gc.collect()
        kept = gateway.gateway._stored._take.__self__  # type: ignore[union-attr]
        assert len(kept._by_id) == 1
        await tenants.workspace("other")
        await change(enabled=False)
        assert (await gateway.ask(acme, "m")).status == 404
        assert (await gateway.ask(acme, "Helper")).error["code"] == "assistant_unavailable"
        gc.collect()
        assert len(kept._by_id) == 0


async def test_a_secret_that_cannot_be_opened_takes_only_its_upstream(
    make: Make, tenants: Tenants, acme: str
) -> None:
    await tenants.upstream("acme", "spare", "http://spare-host/v1", models=("s",))
    async with tenants.database.note() as view:
        found = await upstreams.find(view, "acme", "own")
        assert found is not None
        table = upstreams._table
        await view.execute(table.update().where(table.c.id == found.id).values(base_url="http://moved/v1"))
    async with make() as gateway:
        assert (await gateway.ask(acme, "s")).status == 200
        assert (await gateway.ask(acme, "Helper")).error["code"] == "assistant_unavailable"
    (line,) = [line for line in gateway.lines() if line["event"] == "upstream_unusable"]
    assert (line["workspace"], line["upstream"]) == ("acme", "own")
    assert "sk-of" not in gateway.output.getvalue()


OWN = Settings(
    keys=(KeyConfig(name="operator", key=Secret("sk-operator-0123456789")),),
    upstreams=(UpstreamConfig(name="env", base_url="http://env-host/v1", models=("env-model",)),),
    assistants=({"name": "Of the file", "model": ["env/env-model"]},),
)


async def test_the_settings_are_a_part_of_the_workspace_default(
    make: Make, tenants: Tenants, acme: str
) -> None:
    operator = "sk-operator-0123456789"
    async with make(settings=OWN) as gateway:
        assert await gateway.names(operator) == ["Of the file", "env-model"]
        assert "env-model" not in await gateway.names(acme)
        assert (await gateway.ask(acme, "env-model")).status == 404
        await tenants.workspace("default")
        await tenants.upstream("default", "env", "http://wrong/v1", models=("wrong",))
        await tenants.upstream("default", "db", "http://db-host/v1", models=("db-model",))
        await tenants.assistant("default", "Of the file", "db/db-model")
        await tenants.assistant("default", "Of the database", "env/env-model")
        _, key = await tenants.key("default")
        for caller in (operator, key):
            assert await gateway.names(caller) == ["Of the file", "Of the database", "env-model", "db-model"]
        await gateway.ask(key, "Of the database")
        await gateway.ask(operator, "Of the file")
        assert [a.upstream.base_url for a in gateway.chats[-2:]] == ["http://env-host/v1"] * 2


class Outage:
    """Makes every look at the database fail, and moves the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self._now = freshness_module.monotonic()

    def begin(self) -> None:
        def broken(_self: Database) -> Any:
            raise UnavailableError("down")

        self._patch.setattr(Database, "read", broken)
        self._patch.setattr(freshness_module, "monotonic", lambda: self._now)

    def pass_seconds(self, seconds: float) -> None:
        self._now += seconds


async def test_without_the_database_known_keys_have_a_minute(
    make: Make, tenants: Tenants, acme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, unused = await tenants.key("acme", "unused")
    async with make(settings=OWN) as gateway:
        # What was learned is a change, after which a key has to be read once more.
        await until(lambda: _is_learned(tenants, "acme", "own"))
        assert (await gateway.ask(acme, "Helper")).status == 200
        outage = Outage(monkeypatch)
        with monkeypatch.context():
            outage.begin()
            tenants.database.shared.advance()
            for seconds in (0, 30, 25):
                outage.pass_seconds(seconds)
                assert (await gateway.ask(acme, "Helper")).status == 200
                answer = await gateway.ask(unused, "Helper")
                assert (answer.status, answer.error["code"]) == (503, "auth_unavailable")
                assert answer.headers["retry-after"] == "1"
            outage.pass_seconds(10)
            answer = await gateway.ask(acme, "Helper")
            assert (answer.status, answer.error["code"]) == (503, "auth_unavailable")
            # The operator's own way in needs no database.
            assert (await gateway.ask("sk-operator-0123456789", "Of the file")).status == 200
        monkeypatch.undo()
        await until(lambda: _answers(gateway, unused))
        assert (await gateway.ask(acme, "Helper")).status == 200


async def _is_learned(tenants: Tenants, workspace: str, name: str) -> bool:
    async with tenants.database.read() as view:
        found = await upstreams.find(view, workspace, name)
        assert found is not None
        return bool((await upstreams.discovered(view, workspace, found.id)).models)


async def _answers(gateway: TenantGateway, key: str) -> bool:
    return (await gateway.ask(key, "Helper")).status == 200


async def test_a_workspace_that_forbids_plain_models(make: Make, tenants: Tenants, acme: str) -> None:
    async with tenants.database.change(SYSTEM) as change:
        draft = WorkspaceDraft(name="acme", settings=WorkspaceSettings(plain_models=False))
        await workspaces.replace(change, "acme", draft)
    async with make() as gateway:
        assert await gateway.names(acme) == ["Helper"]
        assert (await gateway.ask(acme, "m")).status == 404
        assert (await gateway.ask(acme, "Helper")).status == 200


async def test_when_keys_were_used_is_written(make: Make, tenants: Tenants, acme: str) -> None:
    async with make() as gateway:
        await gateway.ask(acme, "Helper")
    async with tenants.database.read() as view:
        found = await keys.find(view, "acme", "app")
    assert found is not None
    assert found.last_used_at is not None
