"""Stored responses as streams, and counting input: retrieved again, in the background, from a number on."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from scripted import ScriptedUpstream

pytestmark = pytest.mark.timeout(120)

TOOL: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
_BACKGROUND: Any = {"background": True, "stream": True}


def script(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"x_script": {"key": str(uuid.uuid4()), "steps": list(steps)}}


@pytest.mark.parametrize("model", ["demo-thinking-fast", "demo-fast"])
def test_a_stored_response_is_streamed_again(keeper: OpenAI, model: str) -> None:
    for options in ({}, {"tools": [TOOL]}, {"reasoning": {"summary": "auto"}}):
        made = keeper.responses.create(model=model, input="Call weather for Oslo", **options)  # type: ignore[call-overload]
        events = list(keeper.responses.retrieve(made.id, stream=True))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        for event in events:
            type(event).model_validate(event.model_dump(by_alias=True))
        last = events[-1]
        assert last.type == "response.completed"
        assert last.response.model_dump() == made.model_dump()
        texts = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(texts) == made.output_text
    with pytest.raises(BadRequestError) as refused:
        keeper.responses.retrieve(made.id, stream=True, starting_after=3)
    assert refused.value.param == "starting_after"
    assert "background" in refused.value.message
    with pytest.raises(NotFoundError):
        keeper.responses.retrieve("resp_0", stream=True)


def test_a_response_in_the_background_is_followed_and_taken_up_again(keeper: OpenAI) -> None:
    stream: Any = keeper.responses.create(
        model="scripted", input="Hi", extra_body=script({"delay": 1.5}), **_BACKGROUND
    )
    first = next(stream)
    assert (first.type, first.response.background) == ("response.created", True)
    # The client leaves; the answer is made all the same, and is followed from where it was left.
    stream.close()
    rest: Any = list(keeper.responses.retrieve(first.response.id, stream=True, starting_after=0))
    assert [event.sequence_number for event in rest] == list(range(1, len(rest) + 1))
    assert rest[0].type == "response.in_progress"
    assert rest[-1].type == "response.completed"
    assert rest[-1].response.output_text == "scripted"
    again = list(keeper.responses.retrieve(first.response.id, stream=True, starting_after=4))
    assert [event.model_dump() for event in again] == [event.model_dump() for event in rest[4:]]
    with keeper.responses.stream(response_id=first.response.id, starting_after=1) as helper:
        assert helper.get_final_response().output_text == "scripted"


def test_one_that_is_cancelled_or_deleted_meanwhile_ends_its_stream(keeper: OpenAI) -> None:
    for end, kind in ((keeper.responses.cancel, "response.failed"), (keeper.responses.delete, "error")):
        stream: Any = keeper.responses.create(
            model="scripted", input="Hi", extra_body=script({"delay": 20}), **_BACKGROUND
        )
        ref = next(stream).response.id
        end(ref)
        assert [event.type for event in stream][-1] == kind


def test_one_that_fails_says_so_in_its_stream(keeper: OpenAI) -> None:
    stream: Any = keeper.responses.create(
        model="scripted", input="Hi", extra_body=script({"status": 400}), **_BACKGROUND
    )
    last = list(stream)[-1]
    assert last.type == "response.failed"
    assert last.response.error.message == "scripted 400"


def test_input_is_counted_with_all_that_comes_before(keeper: OpenAI, scripted: ScriptedUpstream) -> None:
    count = keeper.responses.input_tokens.count
    short = count(model="demo-fast", input="Hi")
    assert short.object == "response.input_tokens"
    assert 0 < short.input_tokens < count(model="demo-fast", input="Hi " * 200).input_tokens
    first = keeper.responses.create(model="demo-fast", input="word " * 400)
    assert count(model="demo-fast", input="Hi", previous_response_id=first.id).input_tokens > 400
    with pytest.raises(BadRequestError) as refused:
        count(model="demo-fast", input=[{"role": "nobody", "content": "x"}])  # type: ignore[typeddict-item]
    assert refused.value.param == "input[0].role"
    # Nothing is stored, and nobody is asked.
    key = str(uuid.uuid4())
    keeper.responses.input_tokens.count(
        model="scripted", input="x", extra_body={"x_script": {"key": key, "steps": [{}]}}
    )
    assert scripted.recorded(key) == []


def test_counting_is_exact_where_the_tokenizer_is_known(client: OpenAI) -> None:
    count = client.responses.input_tokens.with_raw_response.count
    known = count(model="spare", input="Hello world")
    # As OpenAI counts it: 3 and 1 around 2 of text, and 3 for the answer.
    assert (known.parse().input_tokens, known.headers["x-token-count"]) == (9, "counted")
    assert count(model="scripted", input="Hello world").headers["x-token-count"] == "estimated"


def test_what_there_is_none_of_says_what_to_do_instead(client: OpenAI) -> None:
    with pytest.raises(NotFoundError) as refused:
        client.post("/responses/compact", body={"model": "demo-fast", "input": "x"}, cast_to=object)
    assert "truncation" in json.dumps(refused.value.body)
