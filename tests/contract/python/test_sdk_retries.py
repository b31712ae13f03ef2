"""What the official client does by itself after an error: how often it asks again, and how long it waits."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from scripted import ScriptedUpstream

HELLO: Any = [{"role": "user", "content": "hello"}]


class Script:
    """A script with a key of its own, and how often the upstream was asked."""

    def __init__(self, upstream: ScriptedUpstream, *steps: dict[str, Any]) -> None:
        self.upstream = upstream
        self.key = uuid.uuid4().hex
        self.body = {"x_script": {"key": self.key, "steps": list(steps)}}

    @property
    def calls(self) -> int:
        return len(self.upstream.recorded(self.key))


def test_a_rate_limit_is_waited_for(client: OpenAI, scripted: ScriptedUpstream) -> None:
    script = Script(scripted, {"status": 429, "headers": {"retry-after-ms": "700"}}, {})
    started = time.monotonic()
    answer = client.chat.completions.create(model="limited-ms", messages=HELLO, extra_body=script.body)
    assert answer.choices[0].message.content == "scripted"
    assert time.monotonic() - started >= 0.69
    assert script.calls == 2


def test_retry_after_in_seconds_is_waited_for(client: OpenAI, scripted: ScriptedUpstream) -> None:
    script = Script(scripted, {"status": 429, "headers": {"retry-after": "1"}}, {})
    started = time.monotonic()
    client.chat.completions.create(model="limited-seconds", messages=HELLO, extra_body=script.body)
    assert time.monotonic() - started >= 0.99
    assert script.calls == 2


def test_a_quota_is_not_waited_for(client: OpenAI, scripted: ScriptedUpstream) -> None:
    error = {"message": "no money", "type": "insufficient_quota", "code": "insufficient_quota"}
    script = Script(scripted, {"status": 429, "body": json.dumps({"error": error})})
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="limited-quota", messages=HELLO, extra_body=script.body)
    assert caught.value.code == "insufficient_quota"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert script.calls == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_error_is_asked_again(client: OpenAI, scripted: ScriptedUpstream, stream: bool) -> None:
    script = Script(scripted, {"status": 500})
    with pytest.raises(openai.InternalServerError) as caught:
        client.with_options(max_retries=1).chat.completions.create(
            model="scripted", messages=HELLO, stream=stream, extra_body=script.body
        )
    assert caught.value.status_code == 500
    # One upstream, so the gateway itself has nobody else to ask: the client's two tries are two calls.
    assert script.calls == 2


def test_a_server_error_that_passes_is_not_seen(client: OpenAI, scripted: ScriptedUpstream) -> None:
    script = Script(scripted, {"status": 502}, {"status": 503}, {})
    answer = client.chat.completions.create(model="scripted", messages=HELLO, extra_body=script.body)
    assert answer.choices[0].message.content == "scripted"
    assert script.calls == 3


def test_should_retry_false_is_obeyed(client: OpenAI, scripted: ScriptedUpstream) -> None:
    script = Script(scripted, {"status": 500, "headers": {"x-should-retry": "false"}})
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="scripted", messages=HELLO, extra_body=script.body)
    assert script.calls == 1


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refusal_is_not_asked_again(client: OpenAI, scripted: ScriptedUpstream, status: int) -> None:
    script = Script(scripted, {"status": status})
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="scripted", messages=HELLO, extra_body=script.body)
    assert caught.value.status_code == status
    assert script.calls == 1


def test_no_retries_means_one_call(client: OpenAI, scripted: ScriptedUpstream) -> None:
    script = Script(scripted, {"status": 500})
    with pytest.raises(openai.InternalServerError):
        client.with_options(max_retries=0).chat.completions.create(
            model="scripted", messages=HELLO, extra_body=script.body
        )
    assert script.calls == 1


@pytest.mark.asyncio
async def test_the_asynchronous_client_waits_too(
    async_client: AsyncOpenAI, scripted: ScriptedUpstream
) -> None:
    script = Script(scripted, {"status": 429, "headers": {"retry-after-ms": "300"}}, {})
    started = time.monotonic()
    await async_client.chat.completions.create(model="limited-async", messages=HELLO, extra_body=script.body)
    assert time.monotonic() - started >= 0.29
    assert script.calls == 2
