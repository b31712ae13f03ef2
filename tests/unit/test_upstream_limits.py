"""Limits of upstreams: where one is reached the next is asked, and who waits as told gets in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fakes.asgi import Answer, request
from fakes.engine import Asked, FakeReply, failed, streaming
from fakes.gateway import FakeGateway, Made
from sluicegate.limits.configured import read_upstreams
from sluicegate.settings import SettingsError, UpstreamConfig, load

BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_tokens":10}'
STREAM = b'{"model":"m","stream":true,"max_tokens":10}'


def limited(name: str, limits: dict[str, Any], **more: Any) -> UpstreamConfig:
    return UpstreamConfig(name=name, base_url=f"http://{name}/v1", models=("m",), limits=limits, **more)


def asked(gateway: FakeGateway) -> list[str]:
    """The hosts that were asked, in order."""
    return [call.upstream.base_url.split("/")[2] for call in gateway.engine.asked]


def refusal(answer: Answer) -> tuple[str, int]:
    assert answer.status == 429
    assert json.loads(answer.body)["error"]["code"] == "rate_limit_exceeded"
    return json.loads(answer.body)["error"]["message"], int(answer.headers["retry-after-ms"])


@pytest.mark.asyncio
async def test_the_next_one_is_asked_and_then_the_shortest_wait_is_told(make: Made) -> None:
    first = limited("one", {"requests_per_minute": 1})
    second = limited("two", {"requests_per_minute": 60, "request_burst": 2}, weight=0)
    gateway = make(None, first, second)
    answers = [await request(gateway.app, body=BODY) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert asked(gateway) == ["one", "two", "two"]
    message, wait = refusal(answers[3])
    assert "the upstream `two`: 60 requests per minute" in message
    assert 900 < wait <= 1000
    await asyncio.sleep(wait / 1000)
    assert (await request(gateway.app, body=BODY)).status == 200


@pytest.mark.asyncio
async def test_its_limits_are_not_those_of_the_client(make: Made) -> None:
    gateway = make(None, limited("one", {"requests_per_minute": 5}), limits={"requests_per_minute": 3})
    headers = (await request(gateway.app, body=BODY)).headers
    assert headers["x-ratelimit-limit-requests"] == "3"


@pytest.mark.asyncio
@pytest.mark.parametrize("script", [FakeReply(), failed(), streaming(b"data: 1\n\n")])
async def test_its_place_is_free_however_it_ends(make: Made, script: Any) -> None:
    gateway = make(lambda _: script, limited("one", {"concurrent_requests": 1}))
    body = STREAM if script.stream is not None else BODY
    assert 429 not in [(await request(gateway.app, body=body)).status for _ in range(3)]


@pytest.mark.asyncio
async def test_a_place_is_held_until_the_answer_ends(make: Made) -> None:
    def script(call: Asked) -> FakeReply | None:
        # The first call stays open.
        return None if len(asked(gateway)) == 1 else FakeReply()

    gateway = make(script, limited("one", {"concurrent_requests": 1}), limited("two", {}, weight=0))
    task = asyncio.create_task(request(gateway.app, body=BODY))
    await asyncio.sleep(0.05)
    assert (await request(gateway.app, body=BODY)).status == 200
    gateway.engine.asked[0].call.cancel()
    await task
    assert (await request(gateway.app, body=BODY)).status == 200
    assert asked(gateway) == ["one", "two", "one"]


@pytest.mark.asyncio
async def test_a_failed_one_gives_its_place_back_before_the_next_is_asked(make: Made) -> None:
    def script(call: Asked) -> FakeReply:
        return failed() if call.upstream.base_url == "http://one/v1" else FakeReply()

    # One server under two names: what the first attempt held must not stand in the way of the second.
    both = {"concurrent_requests": 1, "tokens_per_minute": 1000}
    gateway = make(script, limited("one", both), limited("two", both, weight=0))
    assert [(await request(gateway.app, body=BODY)).status for _ in range(3)] == [200, 200, 200]


@pytest.mark.asyncio
async def test_an_upstream_at_its_limit_costs_no_attempt(make: Made) -> None:
    full = [limited(f"full{n}", {"request_bytes": 1}, weight=9) for n in range(5)]
    gateway = make(None, *full, limited("last", {}, weight=0))
    assert (await request(gateway.app, body=BODY)).status == 200
    assert asked(gateway) == ["last"]
    only = make(None, *full)
    refused = await request(only.app, body=BODY)
    assert refused.status == 413
    assert "the upstream `full" in json.loads(refused.body)["error"]["message"]


@pytest.mark.asyncio
async def test_tokens_of_an_upstream_are_settled(make: Made) -> None:
    gateway = make(None, limited("one", {"tokens_per_minute": 60}))
    # 3 + 5 tokens are used of about 28 that are reserved.
    statuses = [(await request(gateway.app, body=BODY)).status for _ in range(4)]
    assert statuses == [200, 200, 200, 200]


def test_mistakes_name_file_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        '[[upstreams]]\nname = "a"\nbase_url = "http://a/v1"\nlimits = { requests_per_minute = 0 }\n'
    )
    with pytest.raises(SettingsError) as raised:
        read_upstreams(load(str(path), {}))
    assert "s.toml:4: upstreams[0].limits.requests_per_minute: expected" in str(raised.value)
