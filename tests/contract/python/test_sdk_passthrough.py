"""What reaches the upstream: the client's own bytes, the upstream's key, and no header that is private."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import pytest
from contract_setup import API_KEY
from openai import OpenAI
from scripted import UPSTREAM_KEY, Recorded, ScriptedUpstream, completion

from processes import Server

HELLO: Any = [{"role": "user", "content": "hello"}]


def post(served: Server, body: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {API_KEY}", "content-type": "application/json"}
    return httpx.post(f"{served.base_url}/chat/completions", content=body.encode(), headers=headers)


def call(client: OpenAI, upstream: ScriptedUpstream, **parameters: Any) -> Recorded:
    key = uuid.uuid4().hex
    extra = {"x_script": {"key": key, "steps": [{}]}}
    client.chat.completions.create(model="scripted", messages=HELLO, extra_body=extra, **parameters)
    [recorded] = upstream.recorded(key)
    return recorded


def test_the_upstream_gets_its_own_key(client: OpenAI, scripted: ScriptedUpstream) -> None:
    recorded = call(client, scripted)
    assert recorded.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert API_KEY not in json.dumps(vars(recorded))


def test_the_clients_own_headers_stay_here(client: OpenAI, scripted: ScriptedUpstream) -> None:
    sent = {"cookie": "a=b", "x-private": "1", "forwarded": "for=1.2.3.4"}
    recorded = call(client, scripted, extra_headers=sent)
    assert not {"cookie", "x-private", "forwarded"} & set(recorded.headers)
    assert not [name for name in recorded.headers if name.startswith("x-stainless")]
    assert recorded.headers["accept-encoding"] == "identity"


def test_limits_go_upstream_only_where_somebody_set_them(client: OpenAI, scripted: ScriptedUpstream) -> None:
    body = json.loads(call(client, scripted).body)
    assert set(body) == {"model", "messages", "x_script"}
    body = json.loads(call(client, scripted, max_tokens=7, temperature=0).body)
    assert (body["max_tokens"], body["temperature"]) == (7, 0)


def test_a_plain_body_arrives_byte_for_byte(served: Server, scripted: ScriptedUpstream) -> None:
    key = uuid.uuid4().hex
    body = (
        '{"zeta": [1.0e+2, 10000000000000000000001, -0.0],\n\t"model" :"scripted", "x_script":'
        f' {{"key": "{key}", "steps": [{{}}]}}, "messages":[{{"role":"user","content":"\\u00e4ä\\/"}}],'
        ' "metadata": {"a": null, "b": {}}, "seed": 17 }'
    )
    assert post(served, body).status_code == 200
    [recorded] = scripted.recorded(key)
    assert recorded.body == body


def test_a_stream_gains_one_field_and_loses_none(served: Server, scripted: ScriptedUpstream) -> None:
    key = uuid.uuid4().hex
    chunk = '{"id":"c","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}'
    steps = json.dumps([{"chunks": [chunk, "[DONE]"]}])
    body = (
        '{"model":"scripted","future_field":  {"deep":[1.50]}, "stream":true, "x_script":'
        f' {{"key":"{key}","steps":{steps}}},"messages":[{{"role":"user","content":"x"}}]}}'
    )
    assert post(served, body).status_code == 200
    [recorded] = scripted.recorded(key)
    sent = json.loads(recorded.body)
    assert sent.pop("stream_options") == {"include_usage": True}
    assert sent == json.loads(body)
    assert '"future_field":  {"deep":[1.50]}' in recorded.body


def test_an_answer_arrives_byte_for_byte(served: Server) -> None:
    answer = json.dumps(completion("scripted"), indent=3).replace('"usage"', '"service_tier": 1.50, "usage"')
    script = json.dumps({"key": uuid.uuid4().hex, "steps": [{"body": answer}]})
    body = f'{{"model":"scripted","messages":[{{"role":"user","content":"x"}}],"x_script":{script}}}'
    assert post(served, body).text == answer


@pytest.mark.parametrize("stream", [False, True])
def test_upstream_headers_come_back_under_their_own_names(client: OpenAI, stream: bool) -> None:
    headers = {
        "x-request-id": "upstream-77",
        "openai-processing-ms": "12",
        "set-cookie": "a=b",
        "server": "x",
    }
    chunk = '{"id":"c","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}'
    step: dict[str, Any] = {"headers": headers}
    if stream:
        step["chunks"] = [chunk, "[DONE]"]
    raw = client.chat.completions.with_raw_response.create(
        model="scripted",
        messages=HELLO,
        stream=stream,
        extra_body={"x_script": {"key": uuid.uuid4().hex, "steps": [step]}},
    )
    assert raw.headers["x-upstream-request-id"] == "upstream-77"
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["openai-processing-ms"] == "12"
    assert "set-cookie" not in raw.headers
