"""Limits of keys and upstreams in the database: written in every way there is, and kept to."""

from __future__ import annotations

import pytest

from fakes.engine import Asked, FakeReply
from fakes.tenants import Make, Tenants, listing, until
from sluicegate.keys import store as keys
from sluicegate.keys.model import KeyDraft
from sluicegate.limits.model import Budget, Limits
from sluicegate.storage import errors
from sluicegate.storage.database import Database
from sluicegate.storage.transaction import SYSTEM
from sluicegate.upstreams import store as upstreams

pytestmark = pytest.mark.asyncio


def always(asked: Asked) -> FakeReply:
    return listing("m") if asked.operation == "models" else FakeReply()


async def test_limits_of_a_key_hold_and_change_with_the_next_request(make: Make, tenants: Tenants) -> None:
    await tenants.workspace("acme")
    await tenants.upstream("acme", "own", "http://own-host/v1", models=("m",))
    id, tight = await tenants.key("acme", "tight", limits=Limits(requests_per_minute=2))
    _, free = await tenants.key("acme", "free")
    async with make(always) as gateway:
        statuses = [(await gateway.ask(tight, "m")).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        refused = await gateway.ask(tight, "m")
        assert "the key `tight`: 2 requests per minute" in refused.error["message"]
        assert (await gateway.ask(free, "m")).status == 200
        async with tenants.database.change(SYSTEM) as change:
            before = keys.draft_of(await keys.get(change, "acme", id))
            wider = KeyDraft(name=before.name, limits=Limits(requests_per_minute=600))
            await keys.replace(change, "acme", id, wider)

        async def passes() -> bool:
            return (await gateway.ask(tight, "m")).status == 200

        await until(passes)


async def test_a_budget_of_a_key_stops(make: Make, tenants: Tenants) -> None:
    await tenants.workspace("acme")
    await tenants.upstream("acme", "own", "http://own-host/v1", models=("m",))
    _, key = await tenants.key("acme", budget=Budget(tokens_total=10))
    async with make(always) as gateway:
        # Each takes 8 tokens.
        assert [(await gateway.ask(key, "m")).status for _ in range(3)] == [200, 200, 429]
        assert (await gateway.ask(key, "m")).error["code"] == "insufficient_quota"


async def test_an_offered_upstream_is_limited_for_all_who_use_it(make: Make, tenants: Tenants) -> None:
    texts = []
    for name in ("one", "two"):
        await tenants.workspace(name)
        texts.append((await tenants.key(name))[1])
    limits = Limits(requests_per_minute=2)
    id = await tenants.upstream(
        "_platform", "shared", "http://shared-host/v1", models=("m",), offered_to="all", limits=limits
    )
    async with make(always) as gateway:
        statuses = [(await gateway.ask(texts[n % 2], "m")).status for n in range(4)]
        assert statuses == [200, 200, 429, 429]
    async with tenants.database.read() as view:
        assert (await upstreams.get(view, "_platform", id)).limits == limits


async def test_an_admin_key_has_nothing_to_limit(database: Database) -> None:
    tenants = Tenants(database)
    await tenants.workspace("acme")
    for draft, field in (
        (KeyDraft(name="boss", scopes=(), limits=Limits(requests_per_minute=1)), "limits"),
        (KeyDraft(name="boss", scopes=(), budget=Budget(usd_total=1)), "budget"),
    ):
        with pytest.raises(errors.InvalidError, match=field):
            async with database.change(SYSTEM) as change:
                await keys.create(change, "acme", draft, kind="admin", role="viewer")


async def test_what_is_beyond_its_bounds_is_refused(database: Database) -> None:
    tenants = Tenants(database)
    await tenants.workspace("acme")
    with pytest.raises(errors.InvalidError, match=r"limits\.requests_per_minute"):
        await tenants.key("acme", limits=Limits(requests_per_minute=0))
