"""Scores of answers with the official client: told, asked again, asked elsewhere, refused, held back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from contract_setup import API_KEY
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from scored import assistants, bodies, saying, script
from scripted import UPSTREAM_KEY, ScriptedUpstream

from processes import Server, gateway

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "2 + 2?"}]
GOOD, EMPTY = "It is 4.", ""
SETTINGS = """
[[upstreams]]
name = "one"
base_url = "{base_url}"
api_key = "{key}"
models = ["m"]

[[upstreams]]
name = "two"
base_url = "{base_url}"
api_key = "{key}"
models = ["m2", "m3"]
"""
ASSISTANTS: dict[str, dict[str, Any]] = {
    "flag": {},
    "retry": {"quality_action": "retry", "temperature": 0.8},
    "escalate": {"quality_action": "escalate", "model": ["one/m", "two/m2", "two/m3"]},
    "block": {"quality_action": "block"},
    "strict": {"quality_unscored": "block"},
    "words": {"quality_action": "block", "quality_banned": ["Secret"], "quality_required": ["4"]},
    "english": {"quality_action": "block", "quality_script": "latin"},
    "hold": {"quality_action": "block", "quality_stream": "hold"},
    "hold and retry": {"quality_action": "retry", "quality_stream": "hold", "reasoning_output": "separate"},
    "prefix": {"quality_action": "block", "quality_stream": "prefix-hold", "quality_prefix": 12},
    "prefix next": {
        "quality_action": "escalate",
        "quality_stream": "prefix-hold",
        "quality_prefix": 12,
        "quality_banned": ["secret"],
        "model": ["one/m", "two/m2"],
    },
    "unscored": {"quality_score": 0, "quality_action": "block"},
    "never-unscored": {"quality_unscored": "block"},
}


def settings(base_url: str) -> str:
    return SETTINGS.format(base_url=base_url, key=UPSTREAM_KEY) + assistants(ASSISTANTS)


@pytest.fixture(scope="module")
def scored(scripted: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("scored")
    with gateway(settings(scripted.base_url), folder, keys=API_KEY) as server:
        yield server


@pytest.fixture
def judge(scored: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=scored.base_url, api_key=API_KEY, timeout=45, max_retries=0) as client:
        yield client


def ask(client: OpenAI, model: str, extra: dict[str, Any], **more: Any) -> tuple[str | None, dict[str, str]]:
    """What it says, and what the headers say of it."""
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=QUESTION, extra_body=extra, **more
    )
    told = {name: value for name, value in raw.headers.items() if name.startswith("x-quality")}
    return raw.parse().choices[0].message.content, told


def test_a_score_is_told(judge: OpenAI) -> None:
    for step, score, failed in [
        (saying(GOOD), "100", None),
        (saying(EMPTY), "0", "empty"),
        (saying("It is", "length"), "30", "truncated"),
        (saying("I'm sorry, but I can't help with that.", "length"), "20", "truncated, refused"),
    ]:
        _, extra = script(step)
        _, told = ask(judge, "flag", extra)
        expected = {"x-quality-score": score, "x-quality-method": "L0"}
        assert told == expected | ({} if failed is None else {"x-quality-failed": failed})
    _, extra = script(saying(EMPTY))
    assert ask(judge, "unscored", extra) == ("", {})


def test_the_second_try_is_cooler_and_the_better_counts(judge: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script(saying(EMPTY), saying(GOOD))
    said, told = ask(judge, "retry", extra, temperature=1.2)
    assert (said, told["x-quality-score"]) == (GOOD, "100")
    assert [body["temperature"] for body in bodies(scripted, key)] == [1.2, 0.4]
    # Worse, or an error: the first one stays, with its score.
    for second in (saying(EMPTY), {"status": 500}, {"status": 400}):
        key, extra = script(saying("It is", "length"), second)
        said, told = ask(judge, "retry", extra)
        assert (said, told["x-quality-score"]) == ("It is", "30")
        assert len(bodies(scripted, key)) == 2
    key, extra = script(saying(GOOD))
    ask(judge, "retry", extra)
    assert len(bodies(scripted, key)) == 1, "a good answer is asked for once"


def test_the_next_model_is_asked_until_one_is_good_enough(judge: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script(saying(EMPTY), saying(GOOD))
    assert ask(judge, "escalate", extra)[0] == GOOD
    assert [body["model"] for body in bodies(scripted, key)] == ["m", "m2"]
    key, extra = script(saying(EMPTY), saying("It is", "length"), saying(EMPTY))
    said, told = ask(judge, "escalate", extra)
    assert (said, told["x-quality-score"]) == ("It is", "30")
    assert [body["model"] for body in bodies(scripted, key)] == ["m", "m2", "m3"]


@pytest.mark.parametrize(
    ("model", "step", "why"),
    [
        ("block", saying(EMPTY), "score 0 (empty)"),
        ("words", saying("4, as the SECRET book says"), "banned"),
        ("words", saying("four"), "required"),
        ("english", saying("Это четыре."), "script"),
        ("strict", {"body": '{"id": "x", "choices": [{"text": "no chat"}]}'}, "has no score"),
    ],
)
def test_what_is_not_good_enough_is_refused(
    judge: OpenAI, model: str, step: dict[str, Any], why: str
) -> None:
    _, extra = script(step)
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        ask(judge, model, extra)
    error = caught.value
    assert (error.code, error.response.headers["x-should-retry"]) == ("quality_below_threshold", "false")
    assert why in error.message
    _, extra = script(saying(GOOD))
    assert ask(judge, model, extra)[0] == GOOD


def test_json_and_tools_are_checked(judge: OpenAI) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "r", "schema": schema}}
    _, extra = script(saying('{"town": 1}'))
    with pytest.raises(openai.UnprocessableEntityError, match="json"):
        ask(judge, "block", extra, response_format=form)
    _, extra = script(saying('{"city": "Paris"}'))
    assert ask(judge, "block", extra, response_format=form)[1]["x-quality-score"] == "100"
    tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    call = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": '}}]
    _, extra = script(saying("", "tool_calls", tool_calls=call))
    with pytest.raises(openai.UnprocessableEntityError, match="tool_call"):
        ask(judge, "block", extra, tools=tools)


def streamed(client: OpenAI, model: str, extra: dict[str, Any], **more: Any) -> list[Any]:
    return list(
        client.chat.completions.create(model=model, messages=QUESTION, stream=True, extra_body=extra, **more)
    )


def test_a_stream_is_held_back_until_it_is_good_enough(judge: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script(saying(GOOD))
    chunks = streamed(judge, "hold", extra, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == GOOD
    assert chunks[-1].usage.total_tokens == 4
    assert {chunk.model for chunk in chunks} == {"hold"}
    (body,) = bodies(scripted, key)
    assert body["stream"] is False
    assert "stream_options" not in body
    assert all(chunk.usage is None for chunk in streamed(judge, "hold", extra))
    _, extra = script(saying(EMPTY))
    with pytest.raises(openai.UnprocessableEntityError, match="score 0"):
        streamed(judge, "hold", extra)
    key, extra = script(saying("<think>hm"), saying("<think>I add.</think>4"))
    chunks = streamed(judge, "hold and retry", extra)
    told = [(chunk.choices[0].delta.content, chunk.choices[0].delta.model_extra) for chunk in chunks]
    assert told[0] == ("4", {"reasoning_content": "I add."})
    assert len(bodies(scripted, key)) == 2


def test_a_stream_that_is_only_observed_is_never_touched(judge: OpenAI) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "stop"}]
    _, extra = script({"chunks": [json.dumps(chunk | {"choices": choices}), "[DONE]"]})
    assert len(streamed(judge, "block", extra)) == 1


def told_in(*texts: str, finish: str | None = "stop") -> dict[str, Any]:
    """A stream of these texts."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None} for text in texts]
    if finish is not None:
        choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    ended = ["[DONE]"] if finish is not None else []
    return {"chunks": [*(json.dumps({**head, "choices": [choice]}) for choice in choices), *ended]}


def test_a_stream_begins_when_its_beginning_is_good(judge: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script(told_in("It is ", "4, as ", "you ", "know."))
    chunks = streamed(judge, "prefix", extra)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "It is 4, as you know."
    assert {chunk.model for chunk in chunks} == {"prefix"}
    assert bodies(scripted, key)[0]["stream"] is True
    # JSON that is not complete yet is no fault of a beginning.
    _, extra = script(told_in('{"numbers": [1, ', "2, 3]}"))
    form: Any = {"type": "json_object"}
    assert len(streamed(judge, "prefix", extra, response_format=form)) == 3
    # An answer that is shorter is looked at whole.
    _, extra = script(told_in("4"))
    assert streamed(judge, "prefix", extra)[0].choices[0].delta.content == "4"
    for step in (told_in(""), told_in("I cannot ", "help with ", "that, nor with ", "this.")):
        _, extra = script(step)
        with pytest.raises(openai.UnprocessableEntityError, match="score"):
            streamed(judge, "prefix", extra)


def test_a_beginning_that_is_not_good_is_never_seen(judge: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script(told_in("The secret ", "is ", "4."), told_in("It is 4, ", "as you know."))
    raw = judge.chat.completions.with_raw_response.create(
        model="prefix next", messages=QUESTION, stream=True, extra_body=extra
    )
    chunks = list(raw.parse())
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "It is 4, as you know."
    assert [body["model"] for body in bodies(scripted, key)] == ["m", "m2"]
    assert raw.headers["x-upstream-model"] == "m2"
    assert raw.headers["x-quality-score"] == "100"
    # A stream that breaks before its beginning is there has reached nobody: the next is asked.
    key, extra = script({**told_in("It ", finish=None), "cut": True}, told_in("It is 4, ", "as you know."))
    assert len(streamed(judge, "prefix next", extra)) == 3
    assert [body["model"] for body in bodies(scripted, key)] == ["m", "m2"]


def test_there_is_no_door_beside_the_score(judge: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script(saying(GOOD))
    with pytest.raises(openai.BadRequestError, match="Use /v1/chat/completions") as caught:
        judge.completions.create(model="never-unscored", prompt="Say it.", extra_body=extra)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "model")
    assert scripted.recorded(key) == []
    assert ask(judge, "never-unscored", extra)[0] == GOOD
