"""What upstreams of the database are asked, by whom, and what the answers change."""

from __future__ import annotations

import json

import pytest

from fakes.engine import Asked, FakeFailure, FakeReply, failed
from fakes.tenants import Make, Tenants, listing, serving, until
from sluicegate.storage.location import Location

pytestmark = pytest.mark.asyncio


async def test_what_a_server_tells_decides_about_the_window(make: Make, tenants: Tenants) -> None:
    await tenants.workspace("acme", context_window="40%")
    _, key = await tenants.key("acme")
    await tenants.upstream("acme", "vllm", "http://vllm-host/v1", kind="vllm")
    await tenants.upstream("acme", "mute", "http://mute-host/v1", models=("unknown",))

    def script(asked: Asked) -> FakeReply:
        if asked.operation != "models":
            return FakeReply()
        return listing(
            {"id": "long", "max_model_len": 1000} if "vllm" in asked.upstream.base_url else "unknown"
        )

    async with make(script) as gateway:
        await until(lambda: gateway.lists(key, "long"))
        cards = {card["id"]: card for card in (await gateway.get(key)).json["data"]}
        assert cards["long"]["max_model_len"] == 400
        assert "max_model_len" not in cards["unknown"]
        assert (await gateway.ask(key, "long", max_tokens=5000)).status == 200
        assert json.loads(gateway.chats[-1].body or b"")["max_tokens"] < 400
        long = [{"role": "user", "content": "word " * 2000}]
        answer = await gateway.ask(key, "long", messages=long)
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
        assert "400 tokens" in answer.error["message"]
        assert (await gateway.ask(key, "unknown", messages=long)).status == 200
    events = [line for line in gateway.lines() if line["event"] == "context_window_unknown"]
    assert [(line["workspace"], line["model"]) for line in events] == [("acme", "unknown")]


async def test_a_server_that_is_out_gives_way_until_it_is_back(make: Make, tenants: Tenants) -> None:
    await tenants.workspace("acme")
    _, key = await tenants.key("acme")
    first = await tenants.upstream("acme", "first", "http://first-host/v1", models=("m",))
    await tenants.upstream("acme", "second", "http://second-host/v1", models=("m",), priority=1)
    out = True

    def script(asked: Asked) -> FakeReply:
        if asked.operation == "models" and out and "first" in asked.upstream.base_url:
            return failed(FakeFailure("upstream_connect_error"))
        return serving(asked)

    async def goes_to(host: str) -> bool:
        await gateway.ask(key, "m")
        return host in gateway.chats[-1].upstream.base_url

    async with make(script) as gateway:
        await until(lambda: goes_to("second-host"))
        out = False
        assert gateway.gateway.survey is not None
        found = await gateway.gateway.survey.ask("acme", first)
        assert ([m.model for m in found.models], found.error) == (["first-host-model"], None)
        assert await goes_to("first-host")


async def test_only_one_process_asks(make: Make, tenants: Tenants, acme: str, location: Location) -> None:
    async with make() as gateway, make() as other:
        await tenants.upstream("acme", "late", "http://late-host/v1")
        await until(lambda: other.lists(acme, "late-host-model"))
        asked = [
            a.upstream.base_url for g in (gateway, other) for a in g.engine.asked if a.operation == "models"
        ]
        assert sorted(asked) == ["http://acme-host/v1", "http://late-host/v1"]
    # The second takes over when the first has gone.
    async with make() as third:
        await tenants.upstream("acme", "later", "http://later-host/v1")
        await until(lambda: third.lists(acme, "later-host-model"))
