"""Tools and structured output: a round trip, and arguments that survive byte for byte."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam
from pydantic import BaseModel
from scripted import ScriptedUpstream, completion

WEATHER: ChatCompletionToolUnionParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}

# What a parser would change: white space, key order, numbers, escapes, a doubled key, and no end.
EXACT = (
    '{ "b":1.0e+5,\t"a" : "\\u00fc\\/\\ud83d\\ude00 ü😀", "n":"{\\"x\\": 01}", "b":-0,'
    ' "big":12345678901234567890, '
)


class City(BaseModel):
    """One city of an itinerary."""

    name: str
    nights: int


class Journey(BaseModel):
    """What the structured output has to be."""

    title: str
    cities: list[City]


def test_a_tool_round_trip(client: OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "Use get_weather for Lisbon please"}
    ]
    called = client.chat.completions.create(model="demo-fast", messages=messages, tools=[WEATHER])
    assert called.choices[0].finish_reason == "tool_calls"
    message = called.choices[0].message
    assert message.tool_calls is not None
    call: Any = message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}

    messages.append(message.model_dump(exclude_none=True))
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny, 31 degrees"})
    answer = client.chat.completions.create(model="demo-fast", messages=messages, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "stop"
    assert "sunny, 31 degrees" in (answer.choices[0].message.content or "")


def test_a_streamed_tool_call_equals_the_plain_one(client: OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Weather in Lisbon"}]
    plain = client.chat.completions.create(model="demo-fast", messages=messages, tools=[WEATHER])
    assert plain.choices[0].message.tool_calls is not None
    expected: Any = plain.choices[0].message.tool_calls[0]

    name, ids, arguments = "", [], ""
    for chunk in client.chat.completions.create(
        model="demo-fast", messages=messages, tools=[WEATHER], stream=True
    ):
        for delta in chunk.choices[0].delta.tool_calls or []:
            assert delta.index == 0
            assert delta.function is not None
            name += delta.function.name or ""
            arguments += delta.function.arguments or ""
            ids += [delta.id] if delta.id else []
    assert (name, arguments) == ("get_weather", expected.function.arguments)
    assert len(ids) == 1


def exact_answer() -> dict[str, Any]:
    answer = completion("scripted")
    call = {"id": "call_1", "type": "function", "function": {"name": "exact", "arguments": EXACT}}
    answer["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer["choices"][0]["finish_reason"] = "tool_calls"
    return answer


def fragments(cut: int) -> list[str]:
    """The exact arguments as a stream whose deltas are `cut` characters long."""
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        return json.dumps({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "exact", "arguments": ""}}
    parts = [EXACT[start : start + cut] for start in range(0, len(EXACT), cut)]
    deltas = [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in parts]
    return [
        chunk({"role": "assistant", "tool_calls": [head]}),
        *(chunk(delta) for delta in deltas),
        chunk({}, "tool_calls"),
        "[DONE]",
    ]


def test_arguments_of_a_plain_call_survive_exactly(client: OpenAI) -> None:
    script = {"key": uuid.uuid4().hex, "steps": [{"body": json.dumps(exact_answer())}]}
    answer = client.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "x"}], extra_body={"x_script": script}
    )
    assert answer.choices[0].message.tool_calls is not None
    call: Any = answer.choices[0].message.tool_calls[0]
    assert call.function.arguments == EXACT


@pytest.mark.parametrize("cut", [1, 2, 7, 1000])
def test_arguments_of_a_streamed_call_survive_exactly(client: OpenAI, cut: int) -> None:
    script = {"key": uuid.uuid4().hex, "steps": [{"chunks": fragments(cut)}]}
    stream = client.chat.completions.create(
        model="scripted",
        messages=[{"role": "user", "content": "x"}],
        stream=True,
        extra_body={"x_script": script},
    )
    got = [
        call.function.arguments or ""
        for chunk in stream
        for call in chunk.choices[0].delta.tool_calls or []
        if call.function
    ]
    assert "".join(got) == EXACT
    # Fragments are passed on one by one, not gathered: the head has empty arguments.
    assert len(got) == 1 + -(-len(EXACT) // cut)


def test_arguments_sent_back_survive_exactly(client: OpenAI, scripted: ScriptedUpstream) -> None:
    key = uuid.uuid4().hex
    call = {"id": "call_1", "type": "function", "function": {"name": "exact", "arguments": EXACT}}
    client.chat.completions.create(
        model="scripted",
        messages=[
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "done"},
        ],
        extra_body={"x_script": {"key": key, "steps": [{}]}},
    )
    [recorded] = scripted.recorded(key)
    sent = json.loads(recorded.body)["messages"][1]["tool_calls"][0]
    assert sent == call


def test_structured_output_is_parsed(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="demo-fast",
        messages=[{"role": "user", "content": "Plan a journey."}],
        response_format=Journey,
    )
    journey = answer.choices[0].message.parsed
    assert isinstance(journey, Journey)
    assert journey.cities


def test_streamed_structured_output_is_parsed(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="demo-fast",
        messages=[{"role": "user", "content": "Plan a journey."}],
        response_format=Journey,
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Journey)


def test_json_mode_answers_json(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="demo-fast",
        messages=[{"role": "user", "content": "Answer in JSON."}],
        response_format={"type": "json_object"},
    )
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)
