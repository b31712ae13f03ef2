"""The official Python client's Responses API over an upstream that only chats: streams, tools, chains."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI, pydantic_function_tool
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel
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


class Person(BaseModel):
    name: str
    age: int


def script(*steps: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What the scripted upstream shall answer: the key of its records, and the extra body."""
    key = str(uuid.uuid4())
    return key, {"x_script": {"key": key, "steps": list(steps)}}


def sent(scripted: ScriptedUpstream, key: str) -> list[dict[str, Any]]:
    return [json.loads(call.body) for call in scripted.recorded(key)]


def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})


def test_a_plain_response(client: OpenAI) -> None:
    response = client.responses.create(
        model="demo-fast", input="What are you?", instructions="Be short.", max_output_tokens=200
    )
    assert response.status == "completed"
    assert response.model == "demo-fast"
    assert "Sluicegate" in response.output_text
    assert response.id.startswith("resp_")
    assert response.instructions == "Be short."
    assert response.max_output_tokens == 200
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.store is False
    # Strict: what the SDK builds leniently is what its types say.
    Response.model_validate(response.model_dump())


def test_a_stream_has_every_event_and_the_helper_takes_them(client: OpenAI) -> None:
    with client.responses.stream(model="demo-thinking-fast", input="What are you?") as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    texts = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert texts == final.output_text
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.usage is not None
    assert final.usage.output_tokens_details.reasoning_tokens > 0


def test_every_event_of_a_stream_is_one_of_the_sdk_s_types(client: OpenAI) -> None:
    tools: Any = [WEATHER]
    for options in ({}, {"tools": tools}, {"reasoning": {"summary": "auto"}}):
        stream = client.responses.create(
            model="demo-thinking-fast", input="weather in Oslo?", stream=True, **options
        )
        events: list[ResponseStreamEvent] = list(stream)
        for event in events:
            type(event).model_validate(event.model_dump(by_alias=True))
        assert events[-1].type == "response.completed"
    assert "response.reasoning_summary_text.delta" in {event.type for event in events}


def test_thoughts_are_a_summary_where_one_was_asked_for(client: OpenAI) -> None:
    asked = client.responses.create(
        model="demo-thinking-fast", input="Hi", reasoning={"summary": "auto", "effort": "low"}
    )
    item = asked.output[0]
    assert item.type == "reasoning"
    assert item.summary[0].text.startswith("There is no model here")
    assert not item.content
    plain = client.responses.create(model="demo-thinking-fast", input="Hi").output[0]
    assert plain.type == "reasoning"
    assert not plain.summary
    assert plain.content


@pytest.mark.parametrize("stream", [False, True])
def test_structured_output_is_parsed(client: OpenAI, stream: bool) -> None:
    if stream:
        with client.responses.stream(model="demo-fast", input="Who?", text_format=Person) as events:
            parsed = events.get_final_response().output_parsed
    else:
        parsed = client.responses.parse(model="demo-fast", input="Who?", text_format=Person).output_parsed
    assert isinstance(parsed, Person)


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_goes_round(client: OpenAI, stream: bool) -> None:
    items: Any = [{"role": "user", "content": "Call weather for Oslo"}]
    options: Any = {"model": "demo-fast", "tools": [WEATHER]}
    if stream:
        with client.responses.stream(input=items, **options) as events:
            response: Response = events.get_final_response()
    else:
        response = client.responses.create(input=items, **options)
    call = response.output[0]
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Oslo"}
    items += [
        *[item.model_dump(exclude_none=True) for item in response.output],
        {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
    ]
    answer = client.responses.create(input=items, **options)
    assert "rain" in answer.output_text


def test_parsed_tools_of_the_stream_helper(client: OpenAI) -> None:
    class Weather(BaseModel):
        city: str

    tool: Any = pydantic_function_tool(Weather)
    flat = {"type": "function", **tool["function"]}
    with client.responses.stream(model="demo-fast", input="Weather for Oslo", tools=[flat]) as stream:
        final = stream.get_final_response()
    call = final.output[0]
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Oslo"}


def test_a_chain_of_five_turns_over_two_workers(keeper: OpenAI, scripted: ScriptedUpstream) -> None:
    previous: str | None = None
    for number in range(5):
        key, extra = script({"body": _said(f"answer {number}")})
        response = keeper.responses.create(
            model="scripted", input=f"turn {number}", previous_response_id=previous, extra_body=extra
        )
        assert response.output_text == f"answer {number}"
        assert response.previous_response_id == previous
        expected = [
            message
            for turn in range(number)
            for message in (
                {"role": "user", "content": f"turn {turn}"},
                {"role": "assistant", "content": f"answer {turn}"},
            )
        ]
        assert sent(scripted, key)[0]["messages"] == [
            *expected,
            {"role": "user", "content": f"turn {number}"},
        ]
        previous = response.id


def _said(text: str) -> str:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})


def test_a_streamed_response_is_stored_before_its_last_event(keeper: OpenAI) -> None:
    for _ in range(10):
        with keeper.responses.stream(model="demo-fast", input="Hi") as stream:
            for event in stream:
                if event.type == "response.completed":
                    found = keeper.responses.retrieve(event.response.id)
                    assert found.output_text == event.response.output_text
                    assert found.store is True


def test_a_stored_response_is_read_listed_and_deleted(keeper: OpenAI, stranger: OpenAI) -> None:
    made = keeper.responses.create(model="demo-fast", input="What are you?", metadata={"a": "b"})
    assert keeper.responses.retrieve(made.id).model_dump() == made.model_dump()
    items = list(keeper.responses.input_items.list(made.id))
    assert [item.to_dict()["content"] for item in items] == [
        [{"type": "input_text", "text": "What are you?"}]
    ]
    with pytest.raises(NotFoundError):
        stranger.responses.retrieve(made.id)
    with pytest.raises(NotFoundError):
        stranger.responses.delete(made.id)
    with pytest.raises(BadRequestError) as refused:
        stranger.responses.create(model="demo-fast", input="x", previous_response_id=made.id)
    assert (refused.value.code, refused.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )
    keeper.responses.delete(made.id)
    with pytest.raises(NotFoundError):
        keeper.responses.retrieve(made.id)
    with pytest.raises(BadRequestError):
        keeper.responses.create(model="demo-fast", input="x", previous_response_id=made.id)


def test_store_false_keeps_nothing(keeper: OpenAI) -> None:
    made = keeper.responses.create(model="demo-fast", input="x", store=False)
    assert made.store is False
    with pytest.raises(NotFoundError):
        keeper.responses.retrieve(made.id)


def test_a_tool_goes_round_by_previous_response(keeper: OpenAI) -> None:
    options: Any = {"model": "demo-fast", "tools": [WEATHER]}
    first = keeper.responses.create(input="Call weather for Oslo", **options)
    call = first.output[0]
    assert call.type == "function_call"
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    second = keeper.responses.create(input=[output], previous_response_id=first.id, **options)
    assert "sun" in second.output_text
    with pytest.raises(BadRequestError) as refused:
        keeper.responses.create(input=[{**output, "call_id": "other"}], **options)
    assert "other" in refused.value.message


def test_an_item_is_named_by_its_id(keeper: OpenAI, scripted: ScriptedUpstream) -> None:
    made = keeper.responses.create(model="demo-fast", input="x")
    key, extra = script({})
    reference: Any = {"type": "item_reference", "id": made.output[-1].id}
    question: Any = {"role": "user", "content": "and?"}
    keeper.responses.create(model="scripted", input=[reference, question], extra_body=extra)
    assert sent(scripted, key)[0]["messages"][0] == {"role": "assistant", "content": made.output_text}


def test_a_response_in_the_background(keeper: OpenAI) -> None:
    made = keeper.responses.create(model="demo-fast", input="Hi", background=True)
    assert made.status == "queued"
    found = _ended(keeper, made.id)
    assert found.status == "completed"
    assert "Sluicegate" in found.output_text
    assert keeper.responses.cancel(made.id).status == "completed"


def test_a_response_in_the_background_is_cancelled(keeper: OpenAI) -> None:
    _, extra = script({"delay": 4})
    made = keeper.responses.create(model="scripted", input="Hi", background=True, extra_body=extra)
    assert keeper.responses.cancel(made.id).status == "cancelled"
    assert keeper.responses.retrieve(made.id).status == "cancelled"


def test_a_response_in_the_background_that_fails_says_why(keeper: OpenAI) -> None:
    _, extra = script({"status": 400})
    made = keeper.responses.create(model="scripted", input="Hi", background=True, extra_body=extra)
    found = _ended(keeper, made.id)
    assert found.status == "failed"
    assert found.error is not None
    assert found.error.message == "scripted 400"


def _ended(client: OpenAI, response: str) -> Response:
    for _ in range(200):
        found = client.responses.retrieve(response)
        if found.status not in ("queued", "in_progress"):
            return found
    raise AssertionError("still running")


def test_a_broken_stream_is_a_failed_response(keeper: OpenAI) -> None:
    _, extra = script({"chunks": [chunk({"content": "Half"})], "cut": True})
    stream = keeper.responses.create(model="scripted", input="x", stream=True, extra_body=extra)
    events = list(stream)
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.code in ("upstream_truncated", "upstream_reset")
    assert "response.completed" not in {event.type for event in events}
    assert keeper.responses.retrieve(last.response.id).status == "failed"
    with pytest.raises(BadRequestError):
        keeper.responses.create(model="scripted", input="y", previous_response_id=last.response.id)


def test_an_early_failure_keeps_its_status(client: OpenAI) -> None:
    _, extra = script({"status": 422, "body": json.dumps({"error": {"message": "no", "param": "messages"}})})
    with pytest.raises(APIStatusError) as refused:
        client.responses.create(model="scripted", input="x", stream=True, extra_body=extra)
    assert (refused.value.status_code, refused.value.param) == (422, "input")


@pytest.mark.asyncio
async def test_the_asynchronous_client(async_client: AsyncOpenAI) -> None:
    async with async_client.responses.stream(model="demo-fast", input="Hi") as stream:
        final = await stream.get_final_response()
    assert "Sluicegate" in final.output_text
