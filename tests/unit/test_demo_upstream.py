"""The demo upstream: honest, deterministic, and shaped as OpenAI's answers are."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import struct
from typing import Any

import pytest

from sluicegate.demo.schema import SchemaError, document
from sluicegate.demo.upstream import CHAT_MODELS, app


def call(path: str, body: object = None, *, method: str = "POST", leave_after: int | None = None) -> Any:
    """(status, body) of one request; the body as text where it is a stream."""
    sent: list[dict[str, Any]] = []
    gone = asyncio.Event()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def run() -> None:
        pending = [{"type": "http.request", "body": data, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if pending:
                return pending.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)
            if leave_after is not None and len(sent) > leave_after:
                gone.set()

        await app({"type": "http", "method": method, "path": path, "headers": []}, receive, send)

    asyncio.run(run())
    answer = b"".join(message.get("body", b"") for message in sent[1:])
    streamed = dict(sent[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
    return sent[0]["status"], answer.decode() if streamed else json.loads(answer)


def chat(content: str = "How are you?", **fields: Any) -> dict[str, Any]:
    return {"model": "demo-fast", "messages": [{"role": "user", "content": content}], **fields}


def ask(**fields: Any) -> Any:
    status, body = call("/v1/chat/completions", chat(**fields))
    assert status == 200, body
    return body


def chunks(text: str) -> list[dict[str, Any]]:
    *events, end = text.removesuffix("\n\n").split("\n\n")
    assert end == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_it_says_that_no_model_is_behind_it() -> None:
    answer = ask()
    assert "No model is behind it" in answer["choices"][0]["message"]["content"]
    assert answer["system_fingerprint"] == "sluicegate-demo"
    _, models = call("/v1/models", method="GET")
    assert [m["id"] for m in models["data"]] == [*CHAT_MODELS, "demo-embedding"]
    assert {m["owned_by"] for m in models["data"]} == {"sluicegate-demo"}


def test_a_stream_holds_the_same_text_as_the_plain_answer() -> None:
    plain = ask(content="one two three")["choices"][0]["message"]["content"]
    parts = chunks(ask(content="one two three", stream=True))
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in parts) == plain
    assert parts[-1]["choices"][0]["finish_reason"] == "stop"
    assert len({(c["id"], c["created"]) for c in parts}) == 1
    assert not any("usage" in c for c in parts)


def test_usage_in_a_stream_only_where_it_was_asked_for() -> None:
    *parts, last = chunks(ask(stream=True, stream_options={"include_usage": True}))
    assert all(c["usage"] is None for c in parts)
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == 3
    assert last["usage"]["total_tokens"] == 3 + last["usage"]["completion_tokens"]


@pytest.mark.parametrize("stream", [True, False])
def test_max_tokens_counts_words(stream: bool) -> None:
    answer = ask(stream=stream, max_tokens=4)
    if stream:
        parts = [c["choices"][0] for c in chunks(answer)]
        assert "".join(p["delta"].get("content", "") for p in parts) == "Hello from Sluicegate's demo."
        assert parts[-1]["finish_reason"] == "length"
    else:
        assert answer["usage"]["completion_tokens"] == 4
        assert answer["choices"][0]["finish_reason"] == "length"


def test_stop_and_n() -> None:
    choices = ask(stop=["demo"], n=2)["choices"]
    assert [c["index"] for c in choices] == [0, 1]
    assert choices[0]["message"]["content"] == "Hello from Sluicegate's "


def test_thinking_comes_first_and_can_be_switched_off() -> None:
    _, answer = call("/v1/chat/completions", {**chat(), "model": "demo-thinking-fast"})
    message = answer["choices"][0]["message"]
    assert message["reasoning_content"].startswith("There is no model here")
    words = len(message["reasoning_content"].split())
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == words
    _, off = call("/v1/chat/completions", {**chat(reasoning_effort="none"), "model": "demo-thinking-fast"})
    assert "reasoning_content" not in off["choices"][0]["message"]


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}},
            "required": ["city", "unit"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "now"}}


def called(message: dict[str, Any]) -> list[tuple[str, Any]]:
    calls = message.get("tool_calls", [])
    return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["get_weather"]),
        ("auto", ["get_weather"]),
        ("none", []),
        ("required", ["get_weather"]),
        ({"type": "function", "function": {"name": "now"}}, ["now"]),
    ],
)
def test_tool_choice_is_honoured(choice: Any, names: list[str]) -> None:
    choices = ask(content="Weather in Paris?", tools=[WEATHER, CLOCK], tool_choice=choice)["choices"]
    assert [name for name, _ in called(choices[0]["message"])] == names
    assert choices[0]["finish_reason"] == ("tool_calls" if names else "stop")


def test_tool_calls_stream_as_deltas() -> None:
    parts = chunks(ask(content="get_weather for Paris, and now", tools=[WEATHER, CLOCK], stream=True))
    arguments: dict[int, str] = {}
    names: dict[int, str] = {}
    for call_delta in (c for p in parts for c in p["choices"][0]["delta"].get("tool_calls", [])):
        names.setdefault(call_delta["index"], call_delta["function"].get("name", ""))
        arguments.setdefault(call_delta["index"], "")
        arguments[call_delta["index"]] += call_delta["function"]["arguments"]
    assert names == {0: "get_weather", 1: "now"}
    assert json.loads(arguments[0]) == {"city": "Paris", "unit": "c"}
    assert json.loads(arguments[1]) == {}
    assert parts[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_after_a_tool_result_it_answers_with_it() -> None:
    first = ask(content="Weather in Paris?", tools=[WEATHER])["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "21 degrees"}
    history = [chat()["messages"][0], first, result]
    _, answer = call("/v1/chat/completions", {**chat(tools=[WEATHER]), "messages": history})
    assert answer["choices"][0]["message"]["content"].startswith("The tool answered: 21 degrees.")


def test_json_modes_answer_json() -> None:
    plain = ask(response_format={"type": "json_object"})["choices"][0]["message"]["content"]
    assert json.loads(plain)["question"] == "How are you?"
    schema = {"name": "s", "schema": {"type": "object", "properties": {"ok": {"type": "boolean"}}}}
    made = ask(response_format={"type": "json_schema", "json_schema": schema}, stream=True)
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks(made))
    assert json.loads(text) == {"ok": True}


NODE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
    },
    "required": ["name", "next"],
}


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"type": "string", "minLength": 20}, "demo value.........."),
        ({"type": "string", "maxLength": 4}, "d"),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "string", "pattern": "^[0-9]{3}$"}, "111"),
        ({"type": "integer", "minimum": 5, "multipleOf": 4}, 8),
        ({"type": "integer", "maximum": -3}, -4),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": ["null", "boolean"]}, True),
        ({"const": 7}, 7),
        ({"allOf": [{"minimum": 1}, {"minimum": 3}], "type": "integer"}, 3),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True}, [1, 2, 3]),
        ({"type": "array", "items": {"type": "integer", "maximum": 0}, "uniqueItems": True}, [-1, -2]),
        ({"type": "array", "prefixItems": [{"const": 1}], "items": False}, [1]),
        ({"type": "object", "required": ["a"], "additionalProperties": {"type": "null"}}, {"a": None}),
        ({"$defs": {"x": {"enum": ["a"]}}, "$ref": "#/$defs/x"}, "a"),
    ],
)
def test_a_document_fits_its_schema(schema: dict[str, Any], wanted: Any) -> None:
    assert document(schema) == wanted


def test_a_recursive_schema_ends() -> None:
    made = document({**NODE, "$defs": {"node": NODE}})
    assert made["next"]["next"]["next"] is None


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {}},
        {"type": "string", "pattern": "^the one and only$"},
        {"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]},
        {"type": "array", "items": {"const": 1}, "minItems": 2, "uniqueItems": True},
        {"type": "array", "items": {"type": "null"}, "minItems": 10_000_000},
        {"enum": []},
    ],
)
def test_a_schema_that_cannot_be_met_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        document(schema)


def test_embeddings_are_the_same_each_time_and_of_length_one() -> None:
    body = {"model": "demo-embedding", "input": ["a cat", "a dog", "a cat"]}
    _, answer = call("/v1/embeddings", body)
    cat, dog, again = (item["embedding"] for item in answer["data"])
    assert cat == again != dog
    assert math.isclose(sum(x * x for x in cat), 1)
    _, packed = call("/v1/embeddings", {**body, "encoding_format": "base64", "dimensions": 16})
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert math.isclose(sum(x * x for x in struct.unpack("<16f", raw)), 1, rel_tol=1e-6)


def test_completions_echo_and_take_many_prompts() -> None:
    _, answer = call("/v1/completions", {"model": "demo-fast", "prompt": ["One", [1, 2]], "echo": True})
    assert [c["text"][:4] for c in answer["choices"]] == ["One ", "1 2 "]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "gpt-4o"}, 404, "model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages[0].role"),
        ({"n": 0}, 400, "n"),
        ({"max_tokens": "5"}, 400, "max_tokens"),
        ({"temperature": 3}, 400, "temperature"),
        ({"stream_options": {}}, 400, "stream_options"),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, 400, "response_format.json_schema"),
    ],
)
def test_bad_requests_are_refused_in_openais_shape(fields: dict[str, Any], status: int, param: str) -> None:
    got, body = call("/v1/chat/completions", {**chat(), **fields})
    assert got == status
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["param"] == param


def test_paths_and_methods() -> None:
    assert call("/v1/models/demo", method="GET")[1]["id"] == "demo"
    assert call("/v1/models/nope", method="GET")[0] == 404
    assert call("/v1/chat/completions", method="GET")[0] == 405
    assert call("/v2/chat", chat())[0] == 404
    assert call("/v1/chat/completions", b"{")[1]["error"]["code"] == "invalid_json"


def test_it_stops_when_the_client_leaves() -> None:
    _, text = call("/v1/chat/completions", {**chat(stream=True), "model": "demo-slow"}, leave_after=3)
    assert len(re.findall("data: ", text)) == 3
    assert "[DONE]" not in text
