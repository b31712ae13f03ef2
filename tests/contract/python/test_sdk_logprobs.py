"""Log-probabilities with the official client: asked for, not seen by who did not ask, and ranked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from contract_setup import API_KEY
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from scored import assistants, script
from scripted import UPSTREAM_KEY, ScriptedUpstream, completion

from processes import Server, gateway

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "2 + 2?"}]
ENOUGH = 200
SETTINGS = """
[[upstreams]]
name = "one"
base_url = "{base_url}"
api_key = "{key}"
models = ["m", "ranked", "refusing", "forbidden", "held", "streamed"]

[[upstreams]]
name = "groq"
kind = "groq"
base_url = "{base_url}"
api_key = "{key}"
models = ["g"]
"""
ASSISTANTS: dict[str, dict[str, Any]] = {
    "weighed": {},
    "ranked": {"model": ["one/ranked"], "quality_action": "block", "quality_score": 10},
    "refusing": {"model": ["one/refusing"]},
    "forbidden": {"model": ["one/forbidden"]},
    "unable": {"model": ["groq/g"]},
    "strict": {"quality_unscored": "block"},
    "held": {"model": ["one/held"], "quality_stream": "hold"},
    "streamed": {"model": ["one/streamed"]},
    "cheap": {"quality_logprobs": False},
}


def settings(base_url: str) -> str:
    own = assistants(ASSISTANTS, quality_logprobs=True)
    return SETTINGS.format(base_url=base_url, key=UPSTREAM_KEY) + own


@pytest.fixture(scope="module")
def weighing(scripted: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("weighing")
    with gateway(settings(scripted.base_url), folder, keys=API_KEY) as server:
        yield server


@pytest.fixture
def client(weighing: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=weighing.base_url, api_key=API_KEY, timeout=45, max_retries=0) as client:
        yield client


def tokens(words: list[str], logprob: float) -> dict[str, Any]:
    def one(word: str, value: float) -> dict[str, Any]:
        return {"token": word, "logprob": value, "bytes": list(word.encode())}

    content = [
        {**one(word, logprob), "top_logprobs": [one(word, logprob), one("x", logprob - 1)]} for word in words
    ]
    return {"content": content, "refusal": None}


def saying(words: list[str], logprob: float = -0.2, finish: str = "stop", **given: Any) -> dict[str, Any]:
    body = completion("m")
    body["choices"][0] |= {
        "message": {"role": "assistant", "content": "".join(words)},
        "logprobs": given.get("logprobs", tokens(words, logprob)),
        "finish_reason": finish,
    }
    return {"body": json.dumps(body)}


def streaming(words: list[str], logprob: float = -0.2) -> dict[str, Any]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = []
    for word in words:
        choice = {"index": 0, "delta": {"content": word}, "logprobs": tokens([word], logprob)}
        chunks.append(json.dumps({**head, "choices": [{**choice, "finish_reason": None}]}))
    last = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    return {"chunks": [*chunks, json.dumps({**head, "choices": [last]}), "[DONE]"]}


def refusing(message: str, status: int = 400) -> dict[str, Any]:
    error = {"message": message, "type": "invalid_request_error", "param": "logprobs", "code": None}
    return {"status": status, "body": json.dumps({"error": error})}


def asked(scripted: ScriptedUpstream, key: str) -> list[tuple[Any, Any]]:
    bodies = [json.loads(call.body) for call in scripted.recorded(key)]
    return [(body.get("logprobs"), body.get("top_logprobs")) for body in bodies]


def ask(client: OpenAI, model: str, extra: dict[str, Any], **more: Any) -> tuple[Any, dict[str, str]]:
    """The choice, and what the headers say of its quality."""
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=QUESTION, extra_body=extra, **more
    )
    told = {name[10:]: value for name, value in raw.headers.items() if name.startswith("x-quality")}
    return raw.parse().choices[0], told


WORDS = ["It", " is", " 4", "."]


def test_who_does_not_ask_does_not_see_them(client: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script(saying(WORDS))
    choice, told = ask(client, "weighed", extra)
    assert (choice.message.content, choice.logprobs) == ("It is 4.", None)
    assert asked(scripted, key) == [(True, 5)]
    assert (told["score"], told["method"]) == ("none", "L0")
    assert told["reason"].startswith("history ")
    key, extra = script(saying(WORDS))
    choice, _ = ask(client, "weighed", extra, logprobs=True, top_logprobs=2)
    assert [token.token for token in choice.logprobs.content] == WORDS
    assert asked(scripted, key) == [(True, 2)], "as the client says"
    key, extra = script(saying(WORDS, logprobs=None))
    _, told = ask(client, "cheap", extra)
    assert (asked(scripted, key), told) == ([(None, None)], {"score": "100", "method": "L0"})


def test_streams_lose_them_in_every_chunk(client: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script(streaming(WORDS))
    for more, expected in [({}, 0), ({"logprobs": True}, len(WORDS))]:
        chunks = list(
            client.chat.completions.create(
                model="streamed", messages=QUESTION, stream=True, extra_body=extra, **more
            )
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "It is 4."
        assert sum(chunk.choices[0].logprobs is not None for chunk in chunks) == expected
    assert asked(scripted, key) == [(True, 5), (True, None)]
    _, extra = script(saying(WORDS))
    (first, *_) = client.chat.completions.create(
        model="held", messages=QUESTION, stream=True, extra_body=extra
    )
    assert (first.choices[0].delta.content, first.choices[0].logprobs) == ("It is 4.", None)


def test_a_score_is_a_rank_among_own_answers(client: OpenAI) -> None:
    for number in range(ENOUGH):
        _, extra = script(saying(WORDS, -0.01 * (number + 1)))
        _, told = ask(client, "ranked", extra)
        assert (told["score"], told["reason"]) == ("none", f"history {number}/{ENOUGH}")
    _, extra = script(saying(WORDS, -0.005))
    _, told = ask(client, "ranked", extra)
    assert told == {"score": "100", "method": "L0+L1"}
    _, extra = script(saying(WORDS, -1.0))
    assert 45 <= int(ask(client, "ranked", extra)[1]["score"]) <= 55
    _, extra = script(saying(WORDS, -4.0))
    with pytest.raises(openai.UnprocessableEntityError, match="score 0"):
        ask(client, "ranked", extra)
    # A check that fails caps it, however certain the model is.
    _, extra = script(saying(WORDS, -0.001, "length"))
    assert ask(client, "ranked", extra)[1] == {"score": "30", "method": "L0+L1", "failed": "truncated"}
    # A client that asks for other alternatives has another measure, and no history yet.
    _, extra = script(saying(WORDS, -0.005, logprobs={"content": [{"token": "It is 4.", "logprob": -0.1}]}))
    assert ask(client, "ranked", extra)[1]["reason"] == f"history 0/{ENOUGH}"


@pytest.mark.parametrize(
    ("model", "step"),
    [
        ("refusing", refusing("This model does not support the 'logprobs' parameter.")),
        ("forbidden", refusing("You are not allowed to request logprobs from this model", 403)),
    ],
)
def test_an_upstream_that_refuses_is_asked_without(
    client: OpenAI, scripted: ScriptedUpstream, model: str, step: dict[str, Any]
) -> None:
    key, extra = script(step, saying(WORDS, logprobs=None))
    for _ in range(2):
        choice, told = ask(client, model, extra)
        assert choice.message.content == "It is 4."
        assert told == {"score": "none", "method": "L0", "reason": "logprobs_refused"}
    assert asked(scripted, key) == [(True, 5), (None, None), (None, None)], "remembered"
    # Not so where the client asks itself: it hears of it.
    _, extra = script(step)
    with pytest.raises(openai.APIStatusError):
        ask(client, model, extra, logprobs=True)


def test_an_upstream_that_cannot_is_not_asked(client: OpenAI, scripted: ScriptedUpstream) -> None:
    key, extra = script(saying(WORDS, logprobs=None))
    _, told = ask(client, "unable", extra)
    assert (asked(scripted, key), told["reason"]) == ([(None, None)], "logprobs_unsupported")
    # A check that fails is certain all the same.
    _, extra = script(saying([""], logprobs=None))
    _, told = ask(client, "unable", extra)
    assert (told["score"], told["reason"], told["failed"]) == ("0", "logprobs_unsupported", "empty")


@pytest.mark.parametrize(
    ("logprobs", "reason"),
    [
        (None, "no_logprobs"),
        ({"content": None}, "no_logprobs"),
        ({"content": [{"token": "It is 4.", "logprob": None}]}, "malformed_logprobs"),
        ({"content": [{"token": "It is 4.", "logprob": float("nan")}]}, "malformed_logprobs"),
        ("nonsense", "malformed_logprobs"),
        (tokens(["It"], -0.1), "incomplete_logprobs"),
    ],
)
def test_what_says_nothing_is_never_a_pass(client: OpenAI, logprobs: Any, reason: str) -> None:
    _, extra = script(saying(WORDS, logprobs=logprobs))
    choice, told = ask(client, "weighed", extra)
    assert (choice.message.content, choice.logprobs) == ("It is 4.", None)
    assert told == {"score": "none", "method": "L0", "reason": reason}
    with pytest.raises(openai.UnprocessableEntityError, match=reason):
        ask(client, "strict", extra)
