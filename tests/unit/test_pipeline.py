"""The stages of a request, over a scripted core: what goes upstream, what comes back, what is on record."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fakes.asgi import AUTH, JSON, KEY, Client, request
from fakes.engine import Asked, FakeFailure, FakeOutcome, FakeReply, failed, streaming
from fakes.gateway import TWO, Made, settings
from sluicegate import app as application
from sluicegate.engine import RequestError
from sluicegate.settings import UpstreamConfig
from sluicegate.upstreams import discover

pytestmark = pytest.mark.asyncio
PATHS = {"/v1/chat/completions": "chat", "/v1/completions": "completions", "/v1/embeddings": "embeddings"}
STREAM = b'{"model":"m","stream":true}'


@pytest.mark.parametrize("path", PATHS)
async def test_a_plain_request_passes_unchanged(make: Made, path: str) -> None:
    gateway = make(FakeReply(headers=[(b"x-upstream-request-id", b"u1")], body=b'{"a":1}'))
    body = b'{ "model" : "m", "unknown": [1] }'
    answer = await request(gateway.app, path, body)
    assert (answer.status, answer.body) == (200, b'{"a":1}')
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-upstream-request-id"] == "u1"
    assert "x-upstream-model" not in answer.headers
    (asked,) = gateway.engine.asked
    assert asked.body is body
    assert asked.operation == PATHS[path]
    assert asked.upstream.base_url == "http://one/v1"
    assert asked.options == {"request_id": answer.headers["x-request-id"]}
    assert gateway.lines == []


async def test_headers_of_the_client_pass_by_the_list_only(make: Made) -> None:
    gateway = make()
    headers = [AUTH, JSON, (b"traceparent", b"00-a"), (b"cookie", b"c"), (b"x-request-id", b"mine")]
    answer = await request(gateway.app, headers=headers)
    own = answer.headers["x-request-id"]
    assert own != "mine"
    options = gateway.engine.asked[0].options
    assert (options["request_id"], options["headers"]) == (own, [("traceparent", "00-a")])


@pytest.mark.parametrize("path", list(PATHS)[:2])
async def test_a_stream_counts_usage_and_hides_it(make: Made, path: str) -> None:
    gateway = make(streaming(b"data: 1\n\n", b"data: 2\n\n"))
    answer = await request(gateway.app, path, STREAM)
    assert answer.body == b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
    assert [m.get("more_body") for m in answer.messages] == [None, True, True, False]
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-request-id"].startswith("req_")
    (asked,) = gateway.engine.asked
    assert json.loads(asked.body or b"")["stream_options"] == {"include_usage": True}
    assert asked.options["hide_usage"] is True
    assert asked.options["stream"] is True
    assert asked.options["keep_alive"] == 15.0


async def test_a_client_that_asks_for_usage_gets_it_untouched(make: Made) -> None:
    gateway = make(streaming())
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    await request(gateway.app, body=body)
    (asked,) = gateway.engine.asked
    assert asked.body is body
    assert asked.options["hide_usage"] is False


async def test_embeddings_never_get_stream_options(make: Made) -> None:
    gateway = make()
    body = b'{"model":"m","stream":true}'
    await request(gateway.app, "/v1/embeddings", body)
    assert gateway.engine.asked[0].body is body


async def test_an_alias_is_renamed_there_and_back(make: Made) -> None:
    gateway = make(
        None, UpstreamConfig(name="a", base_url="http://a", models=(), aliases={"public": "org/real"})
    )
    answer = await request(gateway.app, body=b'{"model":"public"}')
    (asked,) = gateway.engine.asked
    assert json.loads(asked.body or b"") == {"model": "org/real"}
    assert asked.options["public_model"] == "public"
    assert answer.headers["x-upstream-model"] == "org/real"


async def test_a_request_without_a_model_gets_the_default(make: Made) -> None:
    gateway = make()
    answer = await request(gateway.app, body=b"{}")
    assert answer.status == 200
    (asked,) = gateway.engine.asked
    assert json.loads(asked.body or b"") == {"model": "m"}
    assert "public_model" not in asked.options


async def test_the_default_is_discovered_on_demand(make: Made) -> None:
    def script(asked: Asked) -> FakeReply:
        listed = FakeReply(body=b'{"data":[{"id":"found"},{"id":"second"}]}')
        return listed if asked.operation == "models" else FakeReply()

    gateway = make(script, UpstreamConfig(name="o", base_url="http://o"))
    assert (await request(gateway.app, body=b"{}")).status == 200
    assert [a.operation for a in gateway.engine.asked] == ["models", "chat"]
    assert json.loads(gateway.engine.asked[1].body or b"") == {"model": "found"}


async def test_without_any_list_the_built_in_default_is_used_and_said(make: Made) -> None:
    gateway = make(
        lambda asked: failed() if asked.operation == "models" else FakeReply(),
        UpstreamConfig(name="o", base_url="http://o"),
    )
    assert (await request(gateway.app, body=b"{}")).status == 200
    assert json.loads(gateway.engine.asked[1].body or b"") == {"model": "gpt-3.5-turbo"}
    events = [line["event"] for line in gateway.lines]
    assert events == ["discovery_failed", "fallback_models"]


async def test_no_model_and_no_default_is_a_400(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "LIMIT", 0.01)
    gateway = make(lambda _: None, UpstreamConfig(name="o", base_url="http://o"))
    answer = await request(gateway.app, body=b"{}")
    assert (answer.status, answer.error["code"]) == (400, "missing_required_parameter")
    assert answer.error["param"] == "model"


async def test_the_key_is_checked_before_anything_is_read(make: Made) -> None:
    gateway = make()
    client = Client([b"{}"])
    answer = await request(gateway.app, headers=[], client=client)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert client.received == 0
    assert gateway.engine.asked == []


async def test_an_unknown_model_is_not_asked_for(make: Made) -> None:
    gateway = make()
    answer = await request(gateway.app, body=b'{"model":"M"}')
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert answer.headers["x-should-retry"] == "false"
    assert gateway.engine.asked == []


async def test_a_request_that_cannot_be_read_is_a_400(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = make()

    def refuse(_operation: str, _body: bytes) -> Any:
        raise RequestError("duplicate_key", "`model` stands there twice.", "model")

    monkeypatch.setattr(application.core, "scan", refuse)
    answer = await request(application.create_app(settings()))
    assert answer.status == 400
    assert answer.error == {
        "message": "`model` stands there twice.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "duplicate_key",
    }
    assert gateway.engine.asked == []


# The client leaves.


async def test_a_client_that_leaves_cancels_the_call(make: Made) -> None:
    gateway = make(lambda _: None, access_log=True)
    client = Client([b'{"model":"m"}'])
    running = asyncio.create_task(request(gateway.app, client=client))
    await asyncio.sleep(0.01)
    client.leave()
    answer = await asyncio.wait_for(running, 1)
    assert answer.messages == []
    assert gateway.engine.asked[0].call.cancelled
    (line,) = gateway.lines
    assert (line["status"], line["code"], line["upstream"]) == (499, "client_closed", "one")


async def test_a_client_that_leaves_during_its_body_costs_no_call(make: Made) -> None:
    gateway = make(access_log=True)
    client = Client([b'{"mod'], complete=False)
    asyncio.get_running_loop().call_later(0.01, client.leave)
    answer = await request(gateway.app, client=client)
    # For one that has not left, but sent chunks that are none.
    assert (answer.status, answer.error["code"]) == (400, "invalid_json")
    assert answer.headers["connection"] == "close"
    assert gateway.engine.asked == []
    assert [(line["status"], line["key"]) for line in gateway.lines] == [(499, "tester")]


async def test_after_the_client_left_nobody_else_is_asked(make: Made) -> None:
    gateway = make(lambda _: None, *TWO)
    client = Client([b'{"model":"m"}'])
    running = asyncio.create_task(request(gateway.app, client=client))
    await asyncio.sleep(0.01)
    client.leave()
    await asyncio.wait_for(running, 1)
    assert len(gateway.engine.asked) == 1


async def test_no_task_and_no_timer_is_left(make: Made) -> None:
    gateway = make(streaming(b"x"))
    await request(gateway.app, body=STREAM)
    await asyncio.sleep(0.1)
    assert asyncio.all_tasks() == {asyncio.current_task()}


# The record.


async def test_one_record_for_each_request_with_the_access_log(make: Made) -> None:
    gateway = make(access_log=True)
    answer = await request(gateway.app)
    (line,) = gateway.lines
    expected = {
        "level": "info",
        "event": "request",
        "request_id": answer.headers["x-request-id"],
        "operation": "chat",
        "key": "tester",
        "model": "m",
        "upstream": "one",
        "upstream_model": "m",
        "stream": False,
        "attempts": 1,
        "status": 200,
        "code": None,
        "first_event_ms": 1.5,
        "prompt_tokens": 3,
        "completion_tokens": 5,
        "finish": ["stop"],
    }
    assert expected.items() <= line.items()
    assert line["ms"] > 0


async def test_failed_ones_are_on_record_always_and_refused_ones_with_the_access_log(make: Made) -> None:
    gateway = make(failed())
    await request(gateway.app)
    (line,) = gateway.lines
    assert (line["level"], line["status"], line["code"]) == ("warning", 502, "upstream_connect_error")
    quiet = make()
    await request(quiet.app, headers=[])
    await request(quiet.app, body=b'{"model":"x"}')
    assert quiet.lines == []
    loud = make(access_log=True)
    await request(loud.app, headers=[])
    await request(loud.app, "/v1/nothing")
    assert [(x["level"], x["status"]) for x in loud.lines] == [("info", 401), ("info", 404)]


async def test_a_stream_that_breaks_is_on_record_before_its_end_is_sent(make: Made) -> None:
    tail = b'data: {"error":{}}\n\n'
    outcome = FakeOutcome("failed", FakeFailure("upstream_truncated"), tail)
    gateway = make(streaming(b"x", outcome=outcome))
    answer = await request(gateway.app, body=STREAM)
    assert answer.body == b"x" + tail
    (line,) = gateway.lines
    assert (line["level"], line["status"], line["code"]) == ("warning", 200, "upstream_truncated")


async def test_the_record_comes_before_the_last_bytes(make: Made) -> None:
    gateway = make(streaming(b"x"), access_log=True)
    seen: list[int] = []
    sent = gateway.log.info

    def info(event: str, **fields: Any) -> None:
        seen.append(len(messages))
        sent(event, **fields)

    gateway.log.info = info  # type: ignore[method-assign]
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [AUTH, JSON]}
    await gateway.app(scope, Client([STREAM]).receive, send)
    assert seen == [2]
    assert len(messages) == 3


async def test_no_secret_reaches_the_log(make: Made) -> None:
    upstream = UpstreamConfig(name="one", base_url="http://one", models=("m",))
    gateway = make(failed(), upstream, access_log=True)
    await request(
        gateway.app,
        headers=[AUTH, JSON, (b"cookie", b"canary-cookie")],
        body=b'{"model":"m","x":"canary-text"}',
    )
    await request(gateway.app, headers=[(b"authorization", b"Bearer canary-key"), JSON])
    assert len(gateway.lines) == 2
    for secret in (KEY, "canary"):
        assert secret not in gateway.output.getvalue()
