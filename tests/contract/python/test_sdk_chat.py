"""Chat with the official client: plain, streamed, with and without usage, and the headers around it."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from contract_setup import API_KEY
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from processes import Server

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What are you?"}]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_a_plain_answer_is_a_whole_chat_completion(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="demo-fast", messages=QUESTION)
    assert answer.object == "chat.completion"
    assert answer.model == "demo-fast"
    assert answer.choices[0].finish_reason == "stop"
    assert "What are you?" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens > 5


def test_a_streamed_answer_says_the_same_as_a_plain_one(client: OpenAI) -> None:
    plain = client.chat.completions.create(model="demo-fast", messages=QUESTION)
    chunks = list(client.chat.completions.create(model="demo-fast", messages=QUESTION, stream=True))
    assert text_of(chunks) == plain.choices[0].message.content
    assert len(chunks) > 10
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == ["stop"]


def test_usage_that_nobody_asked_for_stays_hidden(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="demo-fast", messages=QUESTION, stream=True))
    assert all(chunk.choices for chunk in chunks)
    assert not any("usage" in chunk.model_fields_set for chunk in chunks)


def test_usage_that_was_refused_stays_hidden(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="demo-fast", messages=QUESTION, stream=True, stream_options={"include_usage": False}
        )
    )
    assert all(chunk.choices for chunk in chunks)
    assert not any("usage" in chunk.model_fields_set for chunk in chunks)


def test_usage_that_was_asked_for_comes_last_and_once(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="demo-fast", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
    )
    assert all("usage" in chunk.model_fields_set for chunk in chunks)
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    last = chunks[-1]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens > 0


def test_a_stream_ends_with_one_done_on_the_wire(served: Server) -> None:
    body = {"model": "demo-fast", "messages": QUESTION, "stream": True}
    answer = httpx.post(
        f"{served.base_url}/chat/completions", json=body, headers={"authorization": f"Bearer {API_KEY}"}
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.count("[DONE]") == 1
    assert answer.text.endswith("data: [DONE]\n\n")


def test_chunks_arrive_while_the_upstream_still_writes(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="demo-slow", messages=QUESTION, stream=True, max_tokens=4, timeout=10
    )
    with stream:
        first = next(stream)
        assert first.choices[0].finish_reason is None
        rest = list(stream)
    assert rest[-1].choices[0].finish_reason == "length"


def test_the_stream_helper_builds_the_final_answer(client: OpenAI) -> None:
    with client.chat.completions.stream(model="demo-fast", messages=QUESTION) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert "What are you?" in (final.choices[0].message.content or "")


def test_a_client_that_stops_reading_may_ask_again(client: OpenAI) -> None:
    with client.chat.completions.create(model="demo-slow", messages=QUESTION, stream=True) as stream:
        next(stream)
    again = client.chat.completions.create(model="demo-fast", messages=QUESTION)
    assert again.choices[0].finish_reason == "stop"


def test_several_choices_keep_their_places(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="demo-fast", messages=QUESTION, n=3, stream=True))
    finished = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert sorted(finished) == [0, 1, 2]


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_passes_through(client: OpenAI, stream: bool) -> None:
    answer: Any = client.chat.completions.create(model="demo-thinking-fast", messages=QUESTION, stream=stream)
    if stream:
        deltas = [choice.delta for chunk in answer for choice in chunk.choices]
        thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    else:
        thought = answer.choices[0].message.reasoning_content
        assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    assert "no model" in thought


def test_text_of_every_script_survives(client: OpenAI) -> None:
    said = "naïve, 中文, עברית, 🧪‍🔬 \\u0041 \u2028 \x7f"
    answer = client.chat.completions.create(
        model="demo-fast", messages=[{"role": "tool", "tool_call_id": "c1", "content": said}]
    )
    assert said.strip() in (answer.choices[0].message.content or "")


def test_each_answer_names_its_request(client: OpenAI) -> None:
    first = client.chat.completions.with_raw_response.create(model="demo-fast", messages=QUESTION)
    second = client.chat.completions.with_raw_response.create(model="demo-fast", messages=QUESTION)
    assert re.fullmatch(r"req_[0-9a-zA-Z_-]+", first.headers["x-request-id"])
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.parse()._request_id == first.headers["x-request-id"]


def test_a_streamed_answer_names_its_request_too(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="demo-fast", messages=QUESTION, stream=True)
    assert raw.headers["x-request-id"].startswith("req_")
    assert text_of(list(raw.parse()))


@pytest.mark.asyncio
async def test_the_asynchronous_client_gets_the_same(async_client: AsyncOpenAI) -> None:
    plain = await async_client.chat.completions.create(model="demo-fast", messages=QUESTION)
    stream = await async_client.chat.completions.create(model="demo-fast", messages=QUESTION, stream=True)
    chunks = [chunk async for chunk in stream]
    assert text_of(chunks) == plain.choices[0].message.content


@pytest.mark.asyncio
async def test_many_streams_at_once_do_not_mix(async_client: AsyncOpenAI) -> None:
    import asyncio

    async def ask(number: int) -> str:
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"number-{number}-end"}]
        stream = await async_client.chat.completions.create(model="demo-fast", messages=messages, stream=True)
        return text_of([chunk async for chunk in stream])

    answers = await asyncio.gather(*(ask(number) for number in range(40)))
    for number, answer in enumerate(answers):
        assert re.findall(r"number-(\d+)-end", answer) == [str(number)]
