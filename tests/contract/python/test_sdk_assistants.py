"""Assistants with the official client: a model like any other, with what its set-up adds."""

from __future__ import annotations

import json
import uuid
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel
from scripted import ScriptedUpstream

NAME = "Helpful one/π v1"
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What are you?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Report(BaseModel):
    """A shape for structured output."""

    city: str
    degrees: int


def script(*steps: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A key to look the calls up with, and the field that scripts them."""
    key = uuid.uuid4().hex
    return key, {"x_script": {"key": key, "steps": list(steps)}}


def bodies(scripted: ScriptedUpstream, key: str) -> list[dict[str, Any]]:
    return [json.loads(call.body) for call in scripted.recorded(key)]


def test_an_assistant_answers_under_its_own_name(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=NAME, messages=QUESTION)
    assert raw.headers["x-upstream-model"] == "demo-fast"
    answer = raw.parse()
    assert answer.model == NAME
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    plain = client.chat.completions.create(model="demo-fast", messages=QUESTION)
    assert plain.usage is not None
    assert answer.usage.prompt_tokens > plain.usage.prompt_tokens, "the system prompt is counted"


def test_an_assistant_streams(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=NAME, messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
    )
    assert {chunk.model for chunk in chunks} == {NAME}
    assert chunks[-1].usage is not None
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == ["stop"]


@pytest.mark.parametrize("stream", [False, True])
def test_tools_work_through_an_assistant(client: OpenAI, stream: bool) -> None:
    question: Any = [{"role": "user", "content": "Weather in Paris?"}]
    options: Any = {"model": NAME, "messages": question, "tools": [WEATHER], "tool_choice": "required"}
    if not stream:
        calls = client.chat.completions.create(**options).choices[0].message.tool_calls
        assert calls
        assert calls[0].function.name == "get_weather"
        json.loads(calls[0].function.arguments)
        return
    arguments = ""
    for chunk in client.chat.completions.create(**options, stream=True):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                arguments += (call.function.arguments if call.function else None) or ""
    json.loads(arguments)


def test_structured_output_works_through_an_assistant(client: OpenAI) -> None:
    answer = client.chat.completions.parse(model=NAME, messages=QUESTION, response_format=Report)
    assert isinstance(answer.choices[0].message.parsed, Report)


def test_what_is_locked_and_what_is_default(client: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script({})
    mine: Any = [{"role": "system", "content": "Obey me."}, {"role": "user", "content": "hi"}]
    raw = client.chat.completions.with_raw_response.create(
        model="locked",
        messages=mine,
        temperature=1.5,
        top_p=0.75,
        max_completion_tokens=4000,
        extra_body={**extra, "x_unknown": {"a": [1.0, None]}},
    )
    [body] = bodies(scripted, key)
    assert body["messages"] == [{"role": "system", "content": "Only this counts."}, mine[1]]
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.5, 0.75, 100)
    assert "max_completion_tokens" not in body
    assert body["x_unknown"] == {"a": [1.0, None]}
    assert raw.headers["x-dropped-params"] == "temperature, messages[0]"


def test_the_clients_own_instructions_come_second(client: OpenAI, served: Any) -> None:
    mine: Any = [{"role": "developer", "content": "And in French."}, {"role": "user", "content": "hi"}]
    answer = client.chat.completions.create(model=NAME, messages=mine)
    assert answer.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_the_next_model_answers_when_the_first_cannot(
    client: OpenAI, scripted: ScriptedUpstream, stream: bool
) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "x"}
    whole = {**chunk, "choices": [{"index": 0, "delta": {"content": "two"}, "finish_reason": "stop"}]}
    second = {"chunks": [json.dumps(whole), "[DONE]"]} if stream else {}
    key, extra = script({"status": 503}, second)
    impatient = client.with_options(max_retries=0)
    options: Any = {"model": "locked", "messages": QUESTION, "extra_body": {**extra, "logit_bias": {"1": 1}}}
    if stream:
        chunks = list(impatient.chat.completions.create(**options, stream=True))
        assert [(c.model, c.choices[0].delta.content) for c in chunks] == [("locked", "two")]
    else:
        raw = impatient.chat.completions.with_raw_response.create(**options)
        assert raw.headers["x-upstream-model"] == "spare"
        assert raw.headers["x-dropped-params"] == "logit_bias"
        assert raw.parse().model == "locked"
    first, after = bodies(scripted, key)
    assert (first["model"], after["model"]) == ("scripted", "spare")
    # The same request, as each of the two wants it.
    assert (first["max_tokens"], after["max_completion_tokens"]) == (100, 100)
    assert (first["messages"][0]["role"], after["messages"][0]["role"]) == ("system", "developer")
    assert "max_tokens" not in after
    assert "logit_bias" not in after


def test_a_model_that_is_not_there_falls_back_as_well(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="from-nowhere", messages=QUESTION)
    assert raw.headers["x-upstream-model"] == "demo-fast"
    assert raw.parse().model == "from-nowhere"


def test_a_wrong_case_is_a_not_found_that_helps(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model=NAME.upper(), messages=QUESTION)
    assert caught.value.code == "model_not_found"
    assert f"`{NAME}` does" in caught.value.message
    assert "case-sensitive" in caught.value.message


def test_assistants_are_listed_first_and_can_be_looked_up(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    own = [NAME, "locked", "from-nowhere", "narrow-one"]
    assert set(own) <= set(names[: names.index("demo-fast")])
    assert "demo-fast" in names
    card = client.models.retrieve(NAME)
    assert (card.id, card.object, card.owned_by) == (NAME, "model", "default")
    assert card.created == client.models.retrieve(NAME).created
    narrow: Any = client.models.retrieve("narrow-one")
    assert narrow.max_model_len == 1000


def test_a_prompt_that_is_too_long_is_refused_before_it_costs_anything(
    client: OpenAI, scripted: ScriptedUpstream
) -> None:
    key, extra = script({})
    long: Any = [{"role": "user", "content": "word " * 2000}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="narrow-one", messages=long, extra_body=extra)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert "1000 tokens" in caught.value.message
    assert scripted.recorded(key) == []


def test_the_answer_gets_what_the_prompt_leaves(client: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script({})
    long: Any = [{"role": "user", "content": "word " * 600}]
    client.chat.completions.create(model="narrow-one", messages=long, extra_body=extra)
    client.chat.completions.create(model="narrow-one", messages=QUESTION, extra_body=extra)
    limits = [body["max_tokens"] for body in bodies(scripted, key)]
    assert 200 < limits[0] < 300
    assert limits[1] == 500
