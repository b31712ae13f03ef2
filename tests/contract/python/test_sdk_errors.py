"""Each failure becomes the exception that the official client has for it, with all that it promises."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import httpx
import openai
import pytest
from contract_setup import API_KEY
from openai import OpenAI
from scripted import ScriptedUpstream

from processes import Server, free_port

HELLO: Any = [{"role": "user", "content": "hello"}]


def script(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"x_script": {"key": uuid.uuid4().hex, "steps": list(steps)}}


def check_shape(error: openai.APIStatusError) -> None:
    """The four keys, a string for a code, the request id, and a message that says something."""
    body = error.response.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["code"], str)
    assert isinstance(body["error"]["type"], str)
    assert len(body["error"]["message"]) > 10
    assert error.request_id == error.response.headers["x-request-id"]
    assert (error.request_id or "").startswith("req_")


@pytest.mark.parametrize("key", ["sk-wrong", "x" * 300, API_KEY + "x", API_KEY[:-1]])
def test_a_wrong_key_is_an_authentication_error(served: Server, key: str) -> None:
    with (
        OpenAI(base_url=served.base_url, api_key=key, max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(model="demo-fast", messages=HELLO)
    check_shape(caught.value)
    assert caught.value.code == "invalid_api_key"
    assert key not in caught.value.message


def test_no_key_at_all(served: Server) -> None:
    answer = httpx.post(f"{served.base_url}/chat/completions", json={"model": "demo", "messages": HELLO})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_models_need_a_key_too(served: Server) -> None:
    with (
        OpenAI(base_url=served.base_url, api_key="sk-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_a_not_found_error(client: OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="demo-fast-2", messages=HELLO, stream=stream)
    check_shape(caught.value)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


def test_model_names_are_exact(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="DEMO-fast", messages=HELLO)


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_upstream_refuses_is_a_bad_request_error(client: OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="demo-fast", messages=HELLO, tool_choice="required", stream=stream
        )
    check_shape(caught.value)
    assert caught.value.param == "tool_choice"


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_gateway_refuses_never_reaches_the_upstream(
    client: OpenAI, scripted: ScriptedUpstream, stream: bool
) -> None:
    steps = script({})
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="scripted", messages=HELLO, temperature=9, stream=stream, extra_body=steps
        )
    check_shape(caught.value)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "temperature")
    assert scripted.recorded(steps["x_script"]["key"]) == []


def test_an_upstream_error_keeps_its_words_and_code(client: OpenAI) -> None:
    said = {"message": "Too long by 12 tokens.", "type": "invalid_request_error", "param": "messages"}
    body = json.dumps({"error": {**said, "code": "context_length_exceeded"}})
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="scripted", messages=HELLO, extra_body=script({"status": 400, "body": body})
        )
    check_shape(caught.value)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"
    assert "Too long by 12 tokens." in caught.value.message


def test_a_body_that_is_not_json(served: Server) -> None:
    headers = {"authorization": f"Bearer {API_KEY}", "content-type": "application/json"}
    answer = httpx.post(f"{served.base_url}/chat/completions", content=b'{"model": ', headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_json"


def test_a_rate_limit_is_a_rate_limit_error(client: OpenAI) -> None:
    steps = script({"status": 429, "headers": {"retry-after-ms": "1500"}})
    with pytest.raises(openai.RateLimitError) as caught:
        client.with_options(max_retries=0).chat.completions.create(
            model="limited-error", messages=HELLO, extra_body=steps
        )
    check_shape(caught.value)
    assert caught.value.response.headers["retry-after"] == "2"
    assert caught.value.response.headers["retry-after-ms"] == "1500"


def test_an_upstream_that_refuses_our_key_is_not_the_clients_fault(client: OpenAI) -> None:
    steps = script({"status": 401})
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="scripted", messages=HELLO, extra_body=steps)
    check_shape(caught.value)
    assert caught.value.status_code == 502
    assert caught.value.code == "upstream_auth_error"
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_an_upstream_that_is_too_slow_is_a_504(client: OpenAI) -> None:
    steps = script({"delay": 3})
    with pytest.raises(openai.InternalServerError) as caught:
        client.with_options(max_retries=0).chat.completions.create(
            model="scripted-impatient", messages=HELLO, extra_body=steps
        )
    check_shape(caught.value)
    assert caught.value.status_code == 504
    assert caught.value.code == "upstream_timeout"
    assert "first_event_timeout" in caught.value.message


def test_a_client_that_is_too_slow_times_out_itself(client: OpenAI) -> None:
    started = time.monotonic()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(max_retries=0, timeout=0.3).chat.completions.create(
            model="scripted", messages=HELLO, extra_body=script({"delay": 5})
        )
    assert time.monotonic() - started < 5


def test_nobody_there_is_a_connection_error() -> None:
    with (
        OpenAI(base_url=f"http://127.0.0.1:{free_port()}/v1", api_key=API_KEY, max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.models.list()


def chunk(text: str) -> str:
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
    return json.dumps({**base, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


@pytest.mark.parametrize("cut", [False, True])
def test_a_stream_without_its_end_is_an_error(client: OpenAI, cut: bool) -> None:
    steps = script({"chunks": [chunk("one "), chunk("two")], "cut": cut})
    got = ""
    with pytest.raises(openai.APIError) as caught:
        for event in client.chat.completions.create(
            model="scripted", messages=HELLO, stream=True, extra_body=steps
        ):
            got += event.choices[0].delta.content or ""
    assert got == "one two"
    assert caught.value.code in {"upstream_truncated", "upstream_reset"}


def test_an_error_inside_a_stream_is_raised(client: OpenAI) -> None:
    error = json.dumps({"error": {"message": "the GPU fell off", "type": "server_error", "code": "xid_79"}})
    steps = script({"chunks": [chunk("one "), error]})
    got = ""
    with pytest.raises(openai.APIError, match="the GPU fell off") as caught:
        for event in client.chat.completions.create(
            model="scripted", messages=HELLO, stream=True, extra_body=steps
        ):
            got += event.choices[0].delta.content or ""
    assert got == "one "
    assert caught.value.code == "xid_79"


def test_an_error_before_the_first_event_keeps_its_status(client: OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.with_options(max_retries=0).chat.completions.create(
            model="scripted", messages=HELLO, stream=True, extra_body=script({"status": 503})
        )
    check_shape(caught.value)
    assert caught.value.status_code == 503


@pytest.mark.parametrize("path", ["/v1/chat/completion", "/v1/", "/chat/completions", "/v1/unknown"])
def test_an_unknown_path_has_the_same_shape(served: Server, path: str) -> None:
    headers = {"authorization": f"Bearer {API_KEY}"}
    answer = httpx.post(f"{served.origin}{path}", json={}, headers=headers)
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_no_answer_shows_a_key(served: Server, scripted: ScriptedUpstream, client: OpenAI) -> None:
    from scripted import UPSTREAM_KEY

    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(
            model="scripted", messages=HELLO, extra_body=script({"status": 403, "body": "no JSON"})
        )
    assert UPSTREAM_KEY not in caught.value.response.text
    assert UPSTREAM_KEY not in served.output()
    assert str(scripted.port) not in caught.value.response.text
