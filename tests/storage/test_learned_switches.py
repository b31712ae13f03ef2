"""What was seen of a switch for thinking: kept, shown to people, and known to every other worker."""

from __future__ import annotations

import pytest

from fakes.engine import Asked, FakeOutcome, FakeReply
from fakes.tenants import Make, Tenants, serving, until
from sluicegate.storage.database import Database
from sluicegate.storage.transaction import SYSTEM
from sluicegate.upstreams import discovery_store, store
from sluicegate.upstreams.record import LearnedModel
from sluicegate.upstreams.thinking import MOST_LEARNED, LearnedSwitch

pytestmark = pytest.mark.asyncio


async def test_one_worker_sees_it_and_the_other_knows(make: Make, tenants: Tenants) -> None:
    await tenants.workspace("acme")
    _, key = await tenants.key("acme")
    upstream = await tenants.upstream("acme", "own", "http://own-host/v1", kind="vllm", models=("m",))
    await tenants.assistant("acme", "Quick", "own/m", thinking="off")
    answers: list[str] = []

    def script(asked: Asked) -> FakeReply:
        if asked.operation == "models":
            return serving(asked)
        return FakeReply(outcome=FakeOutcome(thinking_bytes=0 if answers else 9))

    async with make(script) as gateway, make(script) as other:
        # The other one has its view of the workspace before there is news.
        answers.append((await gateway.ask(key, "Quick", reasoning_effort=None)).headers["x-thinking"])
        assert answers == ["off; way=template; effective=no"]

        async def known() -> bool:
            async with tenants.database.read() as view:
                return bool((await store.discovered(view, "acme", upstream)).thinking)

        await until(known)

        async def tries_the_next() -> bool:
            answer = await other.ask(key, "Quick")
            return answer.headers["x-thinking"].startswith("off; way=effort")

        await until(tries_the_next)
        lines = [line for line in gateway.lines() if line["event"] == "thinking_switch_not_effective"]
        assert [(line["upstream"], line["upstream_model"], line["way"], line["next"]) for line in lines] == [
            ("own", "m", "template", "effort")
        ]
    async with tenants.database.read() as view:
        found = (await store.discovered(view, "acme", upstream)).thinking
    assert [(one.model, one.asked, one.way, one.verdict) for one in found] == [
        ("m", "off", "template", "not_effective"),
        ("m", "off", "effort", "effective"),
    ]
    # After a restart it is known from the start.
    async with make(script) as third:
        answer = await third.ask(key, "Quick")
        assert answer.headers["x-thinking"] == "off; way=effort; effective=yes"


async def test_what_is_kept_is_bounded_and_goes_with_the_server(database: Database, tenants: Tenants) -> None:
    await tenants.workspace("acme")
    upstream = await tenants.upstream("acme", "own", "http://own-host/v1")

    def seen(model: str, verdict: str = "not_effective") -> LearnedSwitch:
        return LearnedSwitch(model=model, asked="off", way="effort", verdict=verdict, at=1)  # type: ignore[arg-type]

    async def note(*found: LearnedSwitch) -> tuple[LearnedSwitch, ...]:
        async with database.change(SYSTEM) as change:
            for one in found:
                await discovery_store.note_switch(change, upstream, one)
        async with database.read() as view:
            return (await store.discovered(view, "acme", upstream)).thinking

    assert await note(seen("m")) == (seen("m"),)
    assert await note(seen("m", "effective")) == (seen("m"),), "what failed once is not believed to work"
    assert await note(seen("m", "refused")) == (seen("m", "refused"),)
    async with database.note() as view:
        await store.note_discovered(view, upstream, (LearnedModel(model="m"),))
    many = await note(*(seen(f"m{n}") for n in range(MOST_LEARNED + 5)))
    assert len(many) == MOST_LEARNED
    async with database.change(SYSTEM) as change:
        record = await store.get(change, "acme", upstream)
        draft = store.draft_of(record)
        moved = type(draft)(name=draft.name, base_url="http://elsewhere/v1")
        await store.replace(change, "acme", upstream, moved)
    async with database.read() as view:
        assert (await store.discovered(view, "acme", upstream)).thinking == ()
    async with database.change(SYSTEM) as change:
        await store.remove(change, "acme", upstream)
        await discovery_store.note_switch(change, upstream, seen("m"))
