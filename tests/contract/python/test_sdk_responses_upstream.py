"""What an upstream is sent for a response, as a chat or as the response that it makes itself."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from scripted import ScriptedUpstream

pytestmark = pytest.mark.timeout(120)

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def script(*steps: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What the scripted upstream shall answer: the key of its records, and the extra body."""
    key = str(uuid.uuid4())
    return key, {"x_script": {"key": key, "steps": list(steps)}}


def sent(scripted: ScriptedUpstream, key: str) -> list[dict[str, Any]]:
    return [json.loads(call.body) for call in scripted.recorded(key)]


def test_what_goes_upstream(client: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script({})
    client.responses.create(
        model="scripted",
        instructions="Be short.",
        input=[
            {"role": "developer", "content": "Rules."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
                ],
            },
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        ],
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
        text={"format": {"type": "json_schema", "name": "p", "schema": {"type": "object"}, "strict": True}},
        reasoning={"effort": "low"},
        max_output_tokens=9,
        temperature=0.5,
        extra_body=extra,
    )
    (body,) = sent(scripted, key)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
    function = {name: WEATHER[name] for name in ("name", "description", "parameters", "strict")}
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    assert body["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "system", "content": "Rules."},
        {"role": "user", "content": [{"type": "text", "text": "Look"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    schema = {"name": "p", "schema": {"type": "object"}, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert (body["reasoning_effort"], body["max_tokens"], body["temperature"]) == ("low", 9, 0.5)
    assert not {"input", "instructions", "text", "reasoning", "store"} & body.keys()


def test_truncation_drops_the_oldest_turns(client: OpenAI, scripted: ScriptedUpstream) -> None:
    turns: Any = [
        {"role": role, "content": f"{number} " + "word " * 60}
        for number in range(20)
        for role in ("user", "assistant")
    ]
    items = [*turns, {"role": "user", "content": "last"}]
    with pytest.raises(BadRequestError) as refused:
        client.responses.create(model="narrow", input=items)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")
    key, extra = script({})
    rules = {"role": "developer", "content": "Rules."}
    client.responses.create(model="narrow", input=[rules, *items], truncation="auto", extra_body=extra)
    messages = sent(scripted, key)[0]["messages"]
    assert messages[0] == {"role": "system", "content": "Rules."}
    assert messages[1]["role"] == "user"
    assert messages[-1]["content"] == "last"
    assert 2 < len(messages) < len(items)


def _theirs(status: str = "completed") -> dict[str, Any]:
    part = {"type": "output_text", "text": "native", "annotations": []}
    message = {
        "id": "msg_x",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    shown = {"id": "resp_theirs", "object": "response", "model": "native", "status": status, "error": None}
    return {**shown, "output": [message] if status == "completed" else [], "usage": usage}


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_has_responses_is_asked_for_them(
    keeper: OpenAI, scripted: ScriptedUpstream, stream: bool
) -> None:
    events = [
        {"type": "response.created", "sequence_number": 0, "response": _theirs("in_progress")},
        {"type": "response.completed", "sequence_number": 1, "response": _theirs()},
    ]
    step = {"chunks": [json.dumps(event) for event in events]} if stream else {"body": json.dumps(_theirs())}
    key, extra = script(step)
    first = keeper.responses.create(model="demo-fast", input="one")
    options: Any = {"model": "native", "input": "two", "previous_response_id": first.id}
    if stream:
        last = list(keeper.responses.create(stream=True, extra_body=extra, **options))[-1]
        assert last.type == "response.completed"
        made = last.response
    else:
        made = keeper.responses.create(extra_body=extra, **options)
    assert (made.output_text, made.previous_response_id, made.store) == ("native", first.id, True)
    assert made.id != "resp_theirs"
    assert keeper.responses.retrieve(made.id).output_text == "native"
    (call,) = scripted.recorded(key)
    assert call.path == "/v1/responses"
    body = json.loads(call.body)
    assert [item["type"] for item in body["input"]] == ["message"] * 3
    assert body["store"] is False
    assert "previous_response_id" not in body


def test_what_runs_at_the_server_goes_to_an_upstream_that_has_it(
    keeper: OpenAI, scripted: ScriptedUpstream
) -> None:
    search = {"id": "ws_1", "type": "web_search_call", "status": "completed"}
    theirs = _theirs()
    theirs["output"] = [search, *theirs["output"]]
    key, extra = script({"body": json.dumps(theirs)})
    options: Any = {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}
    made = keeper.responses.create(model="native", input="look", extra_body=extra, **options)
    assert [item.type for item in made.output] == ["web_search_call", "message"]
    body = sent(scripted, key)[0]
    assert (body["tools"], body["tool_choice"]) == (options["tools"], options["tool_choice"])
    assert "id" not in body["input"][0]
    # Its items go back there, and are nothing to an upstream that only chats.
    approval: Any = {"type": "mcp_approval_response", "approval_request_id": "x", "approve": True}
    key, extra = script({"body": json.dumps(_theirs())})
    again = keeper.responses.create(
        model="native", input=[approval], previous_response_id=made.id, extra_body=extra
    )
    kinds = [item["type"] for item in sent(scripted, key)[0]["input"]]
    assert kinds == ["message", "web_search_call", "message", "mcp_approval_response"]
    assert sent(scripted, key)[0]["input"][-1] == approval
    key, extra = script({})
    keeper.responses.create(model="scripted", input="x", previous_response_id=again.id, extra_body=extra)
    assert [m["role"] for m in sent(scripted, key)[0]["messages"]] == [
        "user",
        "assistant",
        "assistant",
        "user",
    ]


@pytest.mark.parametrize("model", ["scripted", "locked"])
def test_what_runs_at_the_server_is_refused_elsewhere_by_its_name(keeper: OpenAI, model: str) -> None:
    for tool in ("web_search", "file_search", "code_interpreter", "mcp"):
        with pytest.raises(BadRequestError) as refused:
            keeper.responses.create(model=model, input="x", tools=[{"type": tool}])  # type: ignore[list-item]
        assert (refused.value.code, refused.value.param) == ("unsupported_tool", "tools[0].type")
        assert f"`{tool}`" in refused.value.message
        assert "function" in refused.value.message


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_come_with_the_text(
    client: OpenAI, scripted: ScriptedUpstream, stream: bool
) -> None:
    tokens = [
        {"token": t, "logprob": -0.1, "bytes": list(t.encode()), "top_logprobs": []} for t in ("O", "k")
    ]
    choices = [
        {"index": 0, "delta": {"content": token["token"]}, "logprobs": {"content": [token]}}
        for token in tokens
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    message = {"role": "assistant", "content": "Ok"}
    whole = {"index": 0, "message": message, "logprobs": {"content": tokens}, "finish_reason": "stop"}
    step: dict[str, Any] = {"body": json.dumps({"id": "c", "object": "chat.completion", "choices": [whole]})}
    if stream:
        chunks = [{"id": "c", "object": "chat.completion.chunk", "choices": [choice]} for choice in choices]
        step = {"chunks": [*map(json.dumps, chunks), "[DONE]"]}
    key, extra = script(step)
    options: Any = {"include": ["message.output_text.logprobs"], "top_logprobs": 2, "extra_body": extra}
    if stream:
        with client.responses.stream(model="scripted", input="x", **options) as events:
            deltas = [e for e in events if e.type == "response.output_text.delta"]
            made: Any = events.get_final_response()
        assert [len(delta.logprobs) for delta in deltas] == [1, 1]
    else:
        made = client.responses.create(model="scripted", input="x", **options)
    assert [entry.token for entry in made.output[0].content[0].logprobs] == ["O", "k"]
    assert made.top_logprobs == 2
    (body,) = sent(scripted, key)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
