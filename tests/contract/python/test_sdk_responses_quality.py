"""Scores of responses with the official client: as in chats, by the other door, in the background too."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from contract_setup import API_KEY
from openai import OpenAI
from openai.types.responses import Response
from scored import assistants, bodies, records, saying, script, until
from scripted import UPSTREAM_KEY, ScriptedUpstream, completion

from processes import Server, clean_environment, gateway

pytestmark = pytest.mark.timeout(120)

GOOD, EMPTY, REFUSED = "It is 4.", "", "I'm sorry, but I can't help with that."
SETTINGS = """
[server]
access_log = true

[[upstreams]]
name = "one"
base_url = "{base_url}"
api_key = "{key}"
models = ["m", "weighed"]
responses = true

[[upstreams]]
name = "two"
base_url = "{base_url}"
api_key = "{key}"
models = ["m2", "j"]
"""
JUDGE = {"model": "two/j", "sample": 1.0, "enforced": True}
ASSISTANTS: dict[str, dict[str, Any]] = {
    "flag": {},
    "retry": {"quality_action": "retry", "temperature": 0.8},
    "escalate": {"quality_action": "escalate", "model": ["one/m", "two/m2"]},
    "block": {"quality_action": "block", "quality_unscored": "block"},
    "words": {"quality_action": "block", "quality_banned": ["Secret"]},
    "hold": {"quality_action": "block", "quality_stream": "hold", "reasoning_output": "separate"},
    "prefix": {"quality_action": "escalate", "quality_stream": "prefix-hold", "model": ["one/m", "two/m2"]},
    "weighed": {"quality_logprobs": True, "model": ["one/weighed"]},
    "strict": {"quality_logprobs": True, "quality_unscored": "block", "model": ["one/weighed"]},
    "judged": {"quality_action": "block", "quality_judge": JUDGE},
    "kept": {"quality_action": "block", "chat_history": "default_on"},
    "unscored": {"quality_score": 0, "quality_action": "block"},
}


def settings(base_url: str) -> str:
    return SETTINGS.format(base_url=base_url, key=UPSTREAM_KEY) + assistants(ASSISTANTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("responses_scored")


@pytest.fixture(scope="module")
def server(scripted: ScriptedUpstream, folder: Path) -> Iterator[Server]:
    environment = {"SLUICEGATE_DATA_DIR": str(folder / "data")}
    with gateway(settings(scripted.base_url), folder, keys=API_KEY, environment=environment) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key=API_KEY, timeout=45, max_retries=0) as client:
        yield client


def told_in(*texts: str, finish: str = "stop") -> dict[str, Any]:
    """A stream of these texts."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": {"content": text}, "finish_reason": None} for text in texts
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    return {"chunks": [*(json.dumps({**head, "choices": [choice]}) for choice in choices), "[DONE]"]}


def ask(client: OpenAI, model: str, *steps: dict[str, Any], **more: Any) -> tuple[Response, dict[str, str]]:
    """The response, and what the headers say of its quality."""
    _, extra = script(*steps)
    raw = client.responses.with_raw_response.create(model=model, input="2 + 2?", extra_body=extra, **more)
    told = {name[10:]: value for name, value in raw.headers.items() if name.startswith("x-quality-")}
    return raw.parse(), told


def test_a_score_is_told_and_recorded(client: OpenAI, server: Server) -> None:
    for step, score, failed in [
        (saying(GOOD), "100", None),
        (saying(EMPTY), "0", "empty"),
        (saying("It is", "length"), "30", "truncated"),
        (saying(REFUSED), "20", "refused"),
        (saying(None, refusal="No."), "20", "refused"),
        (saying(GOOD, refusal="No."), "20", "refused"),
        (saying(EMPTY, reasoning_content="Hm."), "0", "empty"),
    ]:
        _, told = ask(client, "flag", step)
        expected = {"score": score, "method": "L0"}
        assert told == expected | ({} if failed is None else {"failed": failed})
    raw = client.responses.with_raw_response.create(
        model="flag", input="2 + 2?", extra_body=script(saying("It is", "length"))[1]
    )
    (line,) = until(lambda: records(server, "responses", request_id=raw.headers["x-request-id"]))
    assert (line["score"], line["score_method"], line["failed_checks"]) == (30, "L0", "truncated")
    assert ask(client, "unscored", saying(EMPTY))[1] == {}


@pytest.mark.parametrize("store", [True, False])
def test_what_is_too_low_is_refused_and_not_stored(client: OpenAI, store: bool) -> None:
    for step in (saying(EMPTY), saying(REFUSED), saying("It is", "length")):
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            ask(client, "block", step, store=store)
        assert caught.value.code == "quality_below_threshold"
        assert caught.value.response.headers["x-should-retry"] == "false"
    made, told = ask(client, "block", saying(GOOD), store=store)
    assert (made.output_text, told["score"]) == (GOOD, "100")
    with pytest.raises(openai.UnprocessableEntityError, match="banned"):
        ask(client, "words", saying("The SECRET is 4."), store=store)


def test_what_is_no_answer_of_a_chat_passes_nowhere(client: OpenAI) -> None:
    odd = completion("m")
    odd["choices"][0]["message"] = None
    for body in ({"object": "x"}, {"choices": []}, {"choices": [{"index": 0}]}, odd):
        for model in ("block", "hold"):
            with pytest.raises(openai.APIStatusError):
                ask(client, model, {"body": json.dumps(body)}, stream=model == "hold")


def test_json_and_tools_are_checked(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    text: Any = {"format": {"type": "json_schema", "name": "r", "schema": schema}}
    with pytest.raises(openai.UnprocessableEntityError, match="json"):
        ask(client, "block", saying('{"town": 1}'), text=text)
    assert ask(client, "block", saying('{"city": "Paris"}'), text=text)[1]["score"] == "100"
    tools: Any = [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}]

    def calling(arguments: str) -> dict[str, Any]:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        return saying(None, "tool_calls", tool_calls=[call])

    with pytest.raises(openai.UnprocessableEntityError, match="tool_call"):
        ask(client, "block", calling('{"x": '), tools=tools)
    made, told = ask(client, "block", calling('{"x": 1}'), tools=tools)
    assert (made.output[0].type, told["score"]) == ("function_call", "100")


def test_the_second_try_is_cooler_and_the_better_counts(
    client: OpenAI, scripted: ScriptedUpstream, server: Server
) -> None:
    key, extra = script(saying(EMPTY), saying(GOOD))
    raw = client.responses.with_raw_response.create(model="retry", input="2 + 2?", extra_body=extra)
    made = raw.parse()
    assert (made.output_text, raw.headers["x-quality-score"]) == (GOOD, "100")
    assert [body["temperature"] for body in bodies(scripted, key)] == [0.8, 0.4]
    (line,) = until(lambda: records(server, "responses", request_id=raw.headers["x-request-id"]))
    assert (line["attempts"], line["score"]) == (2, 100)
    # It is the better one that is stored.
    assert client.responses.retrieve(made.id).output_text == GOOD
    for second in (saying(EMPTY), {"status": 500}):
        made, told = ask(client, "retry", saying("It is", "length"), second)
        assert (made.output_text, told["score"]) == ("It is", "30")
        assert client.responses.retrieve(made.id).status == "incomplete"


def test_the_next_model_is_asked(client: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script(saying(EMPTY), saying(GOOD))
    raw = client.responses.with_raw_response.create(model="escalate", input="2 + 2?", extra_body=extra)
    assert raw.parse().output_text == GOOD
    assert [body["model"] for body in bodies(scripted, key)] == ["m", "m2"]
    assert raw.headers["x-upstream-model"] == "m2"


def test_a_stream_is_observed(client: OpenAI, server: Server) -> None:
    for step, score, failed in [
        (told_in("It ", "is 4."), 100, None),
        (told_in("I'm sorry, but ", "I can't help with that."), 20, "refused"),
        (told_in("It is", finish="length"), 30, "truncated"),
    ]:
        raw = client.responses.with_raw_response.create(
            model="block", input="2 + 2?", stream=True, extra_body=script(step)[1]
        )
        kinds = [event.type for event in raw.parse()]
        assert kinds[-1] in ("response.completed", "response.incomplete")
        (line,) = until(lambda: records(server, "responses", request_id=raw.headers["x-request-id"]))  # noqa: B023
        assert (line["score"], line["failed_checks"], line["stream"]) == (score, failed, True)


@pytest.mark.parametrize("model", ["hold", "prefix"])
def test_a_stream_is_held_back_until_it_is_good_enough(
    client: OpenAI, scripted: ScriptedUpstream, model: str
) -> None:
    steps = [saying("<think>I add.</think>It is 4.")] if model == "hold" else [saying(EMPTY), saying(GOOD)]
    key, extra = script(*steps)
    with client.responses.stream(model=model, input="2 + 2?", extra_body=extra) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    assert (events[-1].type, final.output_text, final.model) == ("response.completed", GOOD, model)
    sent = bodies(scripted, key)
    assert [body["stream"] for body in sent] == [False] * len(steps)
    assert client.responses.retrieve(final.id).output_text == GOOD
    for event in client.responses.create(
        model=model, input="2 + 2?", stream=True, extra_body=script(saying(GOOD))[1]
    ):
        type(event).model_validate(event.model_dump(by_alias=True))
    if model == "hold":
        assert [item.type for item in final.output] == ["reasoning", "message"]
        with pytest.raises(openai.UnprocessableEntityError, match="score 0"):
            ask(client, model, saying(EMPTY), stream=True)
    else:
        assert [body["model"] for body in sent] == ["m", "m2"]


def in_background(client: OpenAI, model: str, *steps: dict[str, Any]) -> Response:
    made, told = ask(client, model, *steps, background=True)
    assert (made.status, told) == ("queued", {}), "the score comes later, in the record"

    def found() -> Response | None:
        now = client.responses.retrieve(made.id)
        return None if now.status in ("queued", "in_progress") else now

    response: Response = until(found)
    return response


def test_in_the_background_it_is_the_same(client: OpenAI, server: Server) -> None:
    assert in_background(client, "retry", saying(EMPTY), saying(GOOD)).output_text == GOOD
    assert in_background(client, "escalate", saying(REFUSED), saying(GOOD)).output_text == GOOD
    flagged = in_background(client, "flag", saying(REFUSED))
    assert (flagged.status, flagged.output_text) == ("completed", REFUSED)
    until(lambda: records(server, "responses", model="flag", score=20, failed_checks="refused"))
    blocked = in_background(client, "block", saying(REFUSED))
    assert (blocked.status, blocked.output) == ("failed", [])
    assert blocked.error is not None
    assert blocked.error.code == "quality_below_threshold"
    until(lambda: records(server, "responses", model="block", status=422, score=20))


def test_one_that_is_cancelled_pays_for_what_was_thrown_away(
    client: OpenAI, server: Server, scripted: ScriptedUpstream, folder: Path
) -> None:
    key, extra = script(saying(EMPTY), {**saying(GOOD), "delay": 30.0})
    made = client.responses.create(model="retry", input="2 + 2?", extra_body=extra, background=True)
    until(lambda: len(scripted.recorded(key)) == 2)
    client.responses.cancel(made.id)
    (line,) = until(lambda: records(server, "responses", model="retry", code="client_closed"))
    assert line["attempts"] == 2
    logs = [sys.executable, "-m", "sluicegate", "logs", "--json", "model=retry", "code=client_closed"]

    def found() -> list[str]:
        environment = clean_environment({"SLUICEGATE_DATA_DIR": str(folder / "data")})
        run = subprocess.run(logs, capture_output=True, text=True, check=True, env=environment)
        return run.stdout.splitlines()

    (told,) = until(found)
    assert json.loads(told)["completion_tokens"] == 1, "of the first answer: the second never came"


def test_without_a_score_nothing_passes_by_accident(client: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script(saying(GOOD))
    raw = client.responses.with_raw_response.create(model="weighed", input="2 + 2?", extra_body=extra)
    told = {name[10:]: value for name, value in raw.headers.items() if name.startswith("x-quality-")}
    assert told == {"score": "none", "method": "L0", "reason": "no_logprobs"}
    assert bodies(scripted, key)[0]["logprobs"] is True
    with pytest.raises(openai.UnprocessableEntityError, match="no_logprobs"):
        ask(client, "strict", saying(GOOD))
    failed = in_background(client, "strict", saying(GOOD))
    assert failed.error is not None
    assert (failed.status, failed.error.code) == ("failed", "quality_below_threshold")


def test_log_probabilities_are_weighed_and_not_seen(client: OpenAI) -> None:
    words = ["It", " is", " 4", "."]
    content = [
        {
            "token": word,
            "logprob": -0.1,
            "bytes": list(word.encode()),
            "top_logprobs": [{"token": word, "logprob": -0.1, "bytes": None}],
        }
        for word in words
    ]
    body = json.loads(saying(GOOD)["body"])
    body["choices"][0]["logprobs"] = {"content": content, "refusal": None}
    step = {"body": json.dumps(body)}
    made, told = ask(client, "weighed", step)
    assert told["reason"].startswith("history ")
    assert '"logprob"' not in made.model_dump_json()
    asked, told = ask(client, "weighed", step, include=["message.output_text.logprobs"])
    assert told["reason"].startswith("history ")
    assert '"logprob":-0.1' in asked.model_dump_json()


def test_a_judge_hears_the_answer(client: OpenAI, scripted: ScriptedUpstream) -> None:
    # Its request has no script of its own: what it says is no verdict, and no pass where that is not allowed.
    made, told = ask(client, "judged", saying(GOOD))
    assert made.output_text == GOOD
    assert (told["score"], told["reason"]) == ("none", "judge_unreadable")


def test_with_chat_history_what_is_refused_is_no_turn(client: OpenAI, scripted: ScriptedUpstream) -> None:
    name = {"x-conversation-id": uuid.uuid4().hex}
    with pytest.raises(openai.UnprocessableEntityError):
        ask(client, "kept", saying(REFUSED), extra_headers=name)
    key, extra = script(saying(GOOD))
    client.responses.create(model="kept", input="2 + 3?", extra_body=extra, extra_headers=name)
    (body,) = bodies(scripted, key)
    assert REFUSED not in json.dumps(body["messages"])
